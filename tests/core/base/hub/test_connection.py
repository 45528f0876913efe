"""The endpoint, its token, and errors of the Hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kdkit.core.base.hub import Hub, connect, hub_errors
from tests.errors import raises_error
from tests.local_hub import ALICE, LocalHub, local_hub

SAVED = "hf_saved_for_huggingface_co"


@pytest.mark.parametrize(
    ("environment", "token"),
    [
        ({}, None),
        ({"HF_TOKEN": SAVED}, None),
        ({"KDKIT_HUB_TOKEN": "hf_mine"}, "hf_mine"),
        ({"KDKIT_HUB_TOKEN": "hf_mine", "HF_TOKEN": SAVED}, "hf_mine"),
    ],
)
def test_a_foreign_host_gets_only_a_token_that_was_meant_for_it(
    environment: Mapping[str, str], token: str | None
) -> None:
    hub = connect("https://mirror.example", environment=environment)
    assert hub.token == token
    assert connect(environment={**environment, "HF_ENDPOINT": "https://mirror.example/"}) == hub
    assert connect("https://mirror.example", "hf_given", environment=environment).token == "hf_given"


def test_huggingface_co_gets_the_saved_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SAVED)
    assert connect(environment={}).token == SAVED
    assert connect("https://huggingface.co/", environment={}).token == SAVED
    assert connect(environment={"KDKIT_HUB_TOKEN": "hf_mine"}).token == "hf_mine"
    assert connect(environment={"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}).token is None
    for impostor in ("http://huggingface.co", "https://huggingface.co.example", "https://huggingface.co:8443"):
        assert connect(impostor, environment={}).token is None


@pytest.mark.parametrize("address", ["huggingface.co", "ftp://host", "https://", "https://me:secret@host"])
def test_what_is_no_address_is_refused_without_repeating_it(address: str) -> None:
    with raises_error("KD-HUB-005", where="HF_ENDPOINT") as caught:
        connect(environment={"HF_ENDPOINT": address})
    assert caught.value.where == "HF_ENDPOINT"
    assert "secret" not in str(vars(caught.value))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalHub]:
    with local_hub(tmp_path / "server") as running:
        yield running


def test_who_a_token_belongs_to_is_asked_once(server: LocalHub) -> None:
    hub = connect(server.url, ALICE.token)
    assert (hub.account.name, hub.account.organizations, hub.account.role) == ("alice", ("lab",), "write")
    assert hub.account.name == "alice"
    assert [request.line for request in server.requests] == ["GET /api/whoami-v2"]


def test_what_is_not_the_hubs_is_left_alone() -> None:
    with pytest.raises(KeyError), hub_errors("x", Hub("https://hub.example")):
        raise KeyError("a mistake of ours")
