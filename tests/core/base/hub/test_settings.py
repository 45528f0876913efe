"""Settings of the network that no request could use are named before one is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.base.hub import connect
from kdkit.core.base.hub.settings import require_usable_settings
from tests.errors import raises_error


@pytest.mark.parametrize(
    ("variable", "value", "id"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1080", "KD-HUB-060"),
        ("all_proxy", "socks://127.0.0.1:7890/", "KD-HUB-061"),
        ("HTTPS_PROXY", "socks4://127.0.0.1:7890/", "KD-HUB-061"),
        ("HTTPS_PROXY", "http://proxy:abc", "KD-HUB-064"),
        ("HTTP_PROXY", "http://[::1", "KD-HUB-064"),
        ("SSL_CERT_FILE", "/nowhere/ca.pem", "KD-HUB-062"),
        ("SSL_CERT_DIR", "/nowhere", "KD-HUB-062"),
    ],
)
def test_the_variable_and_a_remedy_are_named(
    variable: str, value: str, id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdkit.core.base.hub.settings.find_spec", lambda _: None)
    with raises_error(id, where=variable) as caught:
        require_usable_settings({variable: value})
    assert caught.value.fix


def test_usable_settings_pass(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    proxies = {"ALL_PROXY": "127.0.0.1:3128", "HTTP_PROXY": "http://127.0.0.1:9", "https_proxy": ""}
    require_usable_settings({**proxies, "SSL_CERT_FILE": str(tmp_path / "ca.pem"), "SSL_CERT_DIR": str(tmp_path)})


@pytest.mark.parametrize("token", ["hf_\u00fcn\u00ef", "hf_a\nb", "hf_a b", "hf_\x07"])
def test_a_token_with_odd_letters_is_refused_and_not_shown(token: str) -> None:
    where = "KDKIT_HUB_TOKEN"
    with raises_error("KD-HUB-063", where=where, code=ExitCode.DENIED) as caught:
        connect("http://localhost", environment={where: token})
    assert token not in str(vars(caught.value))
    assert connect("http://localhost", environment={where: " hf_alice\r\n"}).token == "hf_alice"


@pytest.mark.parametrize("address", ["http://127.0.0.1:99999", "http://[::1", "http://host:abc", "http://:80"])
def test_addresses_of_no_host(address: str) -> None:
    with raises_error("KD-HUB-005", where="HF_ENDPOINT"):
        connect(environment={"HF_ENDPOINT": address})
