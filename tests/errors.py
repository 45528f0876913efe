"""Assertions about kdkit's errors: by id and fields, so that messages can be reworded."""

from __future__ import annotations

from types import TracebackType

import pytest

from kdkit.core.base.errors import ExitCode, KdkitError


class raises_error:
    """The block must raise the :class:`KdkitError` with this id.

    Args:
        id: such as ``KD-REG-012``.
        where: the whole of the error's ``where``, if given.
        mentions: words (names, numbers) that the error must contain, in any of its fields.
        code: its exit code, if given.

    Example:
        >>> with raises_error("X-001", mentions=["'a'"]) as caught:
        ...     raise KdkitError("X-001", "no teacher 'a'")
        >>> caught.value.code
        <ExitCode.USAGE: 2>
    """

    def __init__(
        self, id: str, *, where: str = "", mentions: tuple[str, ...] | list[str] = (), code: ExitCode | None = None
    ) -> None:
        self.id, self.where, self.mentions, self.code = id, where, mentions, code
        self._raises = pytest.raises(KdkitError)

    def __enter__(self) -> pytest.ExceptionInfo[KdkitError]:
        self._caught = self._raises.__enter__()
        return self._caught

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        __tracebackhide__ = True
        swallowed = self._raises.__exit__(kind, error, trace)
        if swallowed:
            self._check(self._caught.value)
        return swallowed

    def _check(self, error: KdkitError) -> None:
        __tracebackhide__ = True
        text = " | ".join(filter(None, [error.headline, error.why, error.fix]))
        assert error.id == self.id, f"expected {self.id}, got {error.id}: {text}"
        assert not self.where or error.where == self.where, f"expected where={self.where!r}, got {error.where!r}"
        lacking = [word for word in self.mentions if word not in text]
        assert not lacking, f"{error.id} does not mention {lacking}: {text}"
        assert self.code is None or error.code == self.code, f"expected exit code {self.code!r}, got {error.code!r}"
