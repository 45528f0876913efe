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
    shape: tuple[int, ...] = dataset.shape or ()
    batched = len(shape) == 3 and shape[0] == 1  # some versions keep that axis
    shape = shape[1:] if batched else shape
    if len(shape) != 2 or shape[1] < 2 or dataset.dtype.kind not in "iuf":  # before the values take memory
        raise ValueError(f"'{name}' is {dataset.dtype} of shape {shape}")
    try:
        found: NDArray[Any] = np.asarray(dataset[0] if batched else dataset[...])
    except DAMAGED as error:
        raise ValueError(str(error)) from None
    if not np.isfinite(found).all():
        raise ValueError(f"'{name}' has NaN or infinity")
    return found
