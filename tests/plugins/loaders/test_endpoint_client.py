"""The HTTP client of endpoints: settings that no request could use."""

from __future__ import annotations

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.plugins.loaders.endpoint_client import ChatClient
from tests.errors import raises_error


@pytest.mark.parametrize(("variable", "value"), [("ALL_PROXY", "socks://127.0.0.1:1"), ("SSL_CERT_FILE", "/nowhere")])
def test_unusable_settings_of_the_network(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    client = ChatClient("https://localhost:9", key="", timeout=1, tries=1, parallel=1)
    with raises_error("KD-LOAD-061", mentions=(variable,), code=ExitCode.MISSING):
        client.map(lambda _: client.post({}, str), [1])


def test_a_key_with_odd_letters_is_refused_and_not_shown() -> None:
    client = ChatClient("http://localhost:9", key="kéy", timeout=1, tries=1, parallel=1)
    with raises_error("KD-LOAD-060", code=ExitCode.DENIED) as caught:
        client.map(lambda _: client.post({}, str), [1])
    assert "kéy" not in str(vars(caught.value))
