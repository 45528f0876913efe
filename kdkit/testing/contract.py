"""Base of the contract classes: the entry under test, how to make it, a scratch folder."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from unittest import SkipTest

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.plugin_system.catalogue import Catalogue, Entry, Family
from kdkit.core.plugin_system.discovery import load_catalogue

T = TypeVar("T")
PREFIX = "test_"


def once(method: Callable[[Any], T]) -> Callable[[Any], T]:
    """Call ``method`` once per class: pytest makes an object per test, and a model is slow to load.

    When it fails, the first check that needs it fails, and the others are skipped.
    """

    @wraps(method)
    def cached(self: Any) -> T:
        kind = type(self)
        if "_made" not in vars(kind):
            kind._made = {}
        made: dict[str, T | SkipTest] = kind._made
        if method.__name__ not in made:
            made[method.__name__] = skip(f"{method.__name__}() failed in a check before")
            try:
                made[method.__name__] = method(self)
            except SkipTest as reason:
                made[method.__name__] = reason
        found = made[method.__name__]
        if isinstance(found, SkipTest):
            raise found
        return found

    return cached


def skip(why: str) -> SkipTest:
    """An exception for checks that cannot run here; pytest and ``kdkit plugins verify`` both report it as skipped."""
    return SkipTest(why)


class Contract:
    """The checks of one entry of the catalogue. Subclass it in a test module, with ``name``.

    Attributes:
        name: in the catalogue; write ``distribution:name``, which is never ambiguous.
        options: given to the factory, over the spec's own; for what has no default.
    """

    family: ClassVar[Family]
    name: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue of this process."""
        return load_catalogue()

    @property
    def entry(self) -> Entry:
        """The entry under test."""
        return self.catalogue.get(self.family, self.name)

    def make(self, **options: Any) -> Any:
        """A new object from the factory, with :attr:`options` and ``options``.

        Raises:
            SkipTest: the factory requires options, and :attr:`options` is empty.
        """
        try:
            return self.catalogue.make(self.family, self.name, **{**self.options, **options})
        except KdkitError as error:
            if self.options or error.code != ExitCode.USAGE:
                raise
            raise skip(f"it has no defaults ({error.headline}); set 'options' in {_base(self)}") from None

    @once
    def scratch(self) -> Path:
        """A folder for examples, empty at first; deleted when the process ends."""
        folder = tempfile.mkdtemp(prefix="kdkit-testing-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)


def checks(contract: type[Any]) -> Iterator[tuple[str, str]]:
    """(name of the method, the first line of its docstring) of every check, in the order of the source."""
    names = dict.fromkeys(name for kind in reversed(contract.__mro__) for name in vars(kind) if name.startswith(PREFIX))
    for name in names:
        if callable(method := getattr(contract, name)):
            yield name, (method.__doc__ or name).strip().splitlines()[0].replace("``", "`")


def _base(contract: Contract) -> str:
    """The contract class of the kit that an author would subclass."""
    return next(kind.__name__ for kind in type(contract).__mro__ if kind.__module__.startswith("kdkit.testing."))


def expected_error(action: Callable[[], object], wanted: str, named: str) -> KdkitError:
    """The :class:`KdkitError` that ``action`` must raise; it must mention ``named``."""
    try:
        action()
    except KdkitError as error:
        found = error
    except Exception as error:
        raise AssertionError(f"expected {wanted}, got {type(error).__name__}: {error}") from error
    else:
        raise AssertionError(f"expected {wanted}, got none")
    assert named in f"{found.headline} {found.why}", f"expected {wanted} that names {named}, got: {found.headline}"
    return found
