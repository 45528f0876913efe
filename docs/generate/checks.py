"""The page of all checks of the conformance kit."""

from __future__ import annotations

import kdkit.testing as kit

CONTRACTS = sorted(name for name in kit.__all__ if name.endswith("Contract") and name != "Contract")
INTRODUCTION = """\
# Plugin checks

*This page is generated from `kdkit.testing`.* [Test a plugin](../howto/test-plugin.md) shows how to run these checks.

Numbers are compared in float32 within 1e-4 of the largest entry. Under bf16 autocast the limit is 0.1 of it. Values
computed twice must be equal to the last bit. Everything runs on the CPU.
"""


def page() -> str:
    """Every contract class with its checks and their promises."""
    sections = [
        f"## `{name}`\n\n" + "".join(f"- `{check}`: {promise}\n" for check, promise in kit.checks(getattr(kit, name)))
        for name in CONTRACTS
    ]
    return "\n".join([INTRODUCTION, *sections])
