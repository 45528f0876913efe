"""Data sets of HDF5 files that others wrote: values must lie in the file itself."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

DAMAGED = (OSError, RuntimeError, MemoryError)
"""What h5py raises for damaged values, and for filters that are not installed."""


class OutsideFileError(ValueError):
    """The values of a data set are those of another file."""


def own_dataset(file: h5py.File, name: str) -> h5py.Dataset | None:
    """A data set whose values lie in this file; None if it is not there.

    Raises:
        OutsideFileError: it is a link, or its values lie in another file.
        ValueError: it is a group.
    """
    link = file.get(name, getlink=True)
    if link is None:
        return None
    if not isinstance(link, h5py.HardLink):
        raise OutsideFileError(f"'{name}' is a link to another place")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"'{name}' is a group")
    if dataset.external or dataset.is_virtual:
        raise OutsideFileError(f"the values of '{name}' lie in another file")
    return dataset


def read_coordinates(dataset: h5py.Dataset, name: str) -> NDArray[Any]:
    """(N, 2 or more) finite numbers: places of patches, as TRIDENT and CLAM write them.

    Raises:
        ValueError: it is damaged, or holds something else.
    """
    try:
        found = np.asarray(dataset[...])
    except DAMAGED as error:
        raise ValueError(str(error)) from None
    found = found[0] if found.ndim == 3 and len(found) == 1 else found  # some versions keep the batch axis
    if found.ndim != 2 or found.shape[1] < 2 or found.dtype.kind not in "iuf":
        raise ValueError(f"'{name}' is {found.dtype} of shape {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError(f"'{name}' has NaN or infinity")
    return found
