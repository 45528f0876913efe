"""The contract classes that a file of tests defines: the examples and options of a plugin's author."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.plugin_system.failures import one_line
from kdkit.testing.contract import Contract
from kdkit.testing.contracts.plugin import PluginContract

MODULE = "kdkit_verified_tests"


def contracts_of(path: Path) -> list[type[Any]]:
    """The named contract classes of a test module, as pytest would collect them.

    Raises:
        KdkitError: no such file, one that cannot be imported, or one without contract classes.
    """
    if not path.is_file():
        raise KdkitError(
            "KD-TEST-001",
            "test file not found",
            where=str(path),
            fix="check the path after --tests",
            code=ExitCode.MISSING,
        )
    spec = spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise KdkitError("KD-TEST-002", "not a Python file", where=str(path), fix="name a file that ends in .py")
    module = module_from_spec(spec)
    sys.modules[MODULE] = module
    sys.path.insert(0, str(path.resolve().parent))  # as pytest does
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise KdkitError(
            "KD-TEST-003",
            "cannot import the test file",
            where=str(path),
            why=one_line(error),
            fix="run it with pytest first",
        ) from error
    finally:
        sys.path.pop(0)
    found = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, (Contract, PluginContract)) and kind.__module__ == MODULE
    ]
    named = [kind for kind in found if hasattr(kind, "name")]
    if not named:
        raise KdkitError(
            "KD-TEST-004",
            "no contract class with a name in the test file",
            where=str(path),
            fix="subclass a contract of kdkit.testing and set name",
        )
    return named
