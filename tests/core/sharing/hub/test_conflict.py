"""Two concurrent pushes: one succeeds, the other fails with the changed files, nothing is lost."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub import Hub, connect
from kdkit.core.sharing.hub import Uploaded, plan_upload, upload
from kdkit.core.sharing.hub.commit import Made, commit_once
from tests.core.sharing.hub.conftest import BOB, Release
from tests.core.sharing.hub.content import hashes
from tests.errors import raises_error
from tests.local_hub import LocalHub


def test_the_second_push_is_refused_with_the_author_and_changes_of_the_first(
    server: LocalHub, hub: Hub, release: Release
) -> None:
    server.add("lab/s", {"README.md": b"old", "old.json": b"{}"}, private=True)
    folder = release()
    plan = plan_upload(hub, "lab/s", "model", folder)
    bobs = {"README.md": b"better", "notes.md": b"read me"}
    server.add("lab/s", bobs, title="Better card", author="bob")
    changes = ('bob ("Better card")', "added notes.md;", "changed README.md;", "removed old.json", "push again")
    with raises_error("KD-HUB-003", where="lab/s@main", mentions=changes, code=ExitCode.FOUND) as caught:
        upload(hub, plan)
    assert caught.value.why.count(";") == 2
    assert server.received() == 0, "refused before any upload"
    upload(hub, plan_upload(hub, "lab/s", "model", folder))
    assert server.hashes("lab/s") == hashes(folder)
    assert server.repository("lab/s").history(server.head("lab/s"))[1].title == "Better card"


@pytest.mark.parametrize("exists", [True, False])
def test_a_race_has_one_winner(server: LocalHub, release: Release, exists: bool) -> None:
    """Both have planned, and both have sent their contents, when the first of them commits."""
    if exists:
        server.add("lab/s", {"README.md": b"old"}, private=True)
    hubs = {"alice": connect(server.url, "hf_alice"), "bob": connect(server.url, BOB.token)}
    folders = {name: release(**{f"{name}.json": b"{}"}) for name in hubs}
    plans = {name: plan_upload(hub, "lab/s", "model", folders[name]) for name, hub in hubs.items()}
    outcomes: dict[str, Uploaded | KdkitError] = {}

    def push(name: str) -> None:
        try:
            outcomes[name] = upload(hubs[name], plans[name], message=f"of {name}")
        except KdkitError as error:
            outcomes[name] = error

    threads = [threading.Thread(target=push, args=(name,)) for name in hubs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [name for name, outcome in outcomes.items() if isinstance(outcome, Uploaded)]
    assert len(winners) == 1
    loser = next(name for name in hubs if name not in winners)
    told = outcomes[loser]
    assert isinstance(told, KdkitError)
    if not exists and told.why.startswith(f'{winners[0]} ("initial commit")'):
        pass  # it looked when the winner had made the repository, and not committed yet
    else:
        assert told.why.startswith(f'{winners[0]} ("of {winners[0]}")')
        assert f"{winners[0]}.json" in told.why
    assert server.hashes("lab/s") == hashes(folders[winners[0]])


def test_the_commit_itself_is_refused_after_another_commit(
    server: LocalHub, hub: Hub, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add("lab/s", {"README.md": b"old"}, private=True)
    plan = plan_upload(hub, "lab/s", "model", release())

    def after_bob(*given: Any, **more: Any) -> Made:
        server.add("lab/s", {"README.md": b"bobs"}, title="Mine", author="bob")
        return commit_once(*given, **more)

    monkeypatch.setattr(sys.modules["kdkit.core.sharing.hub.upload"], "commit_once", after_bob)
    with raises_error("KD-HUB-003", where="lab/s@main", mentions=('bob ("Mine") changed README.md',)) as caught:
        upload(hub, plan)
    assert caught.value.why.endswith("README.md")
    assert [request.status for request in server.requests if "/commit/" in request.path] == [412]


def test_a_repository_that_somebody_made_meanwhile_is_not_overwritten(
    server: LocalHub, hub: Hub, release: Release
) -> None:
    plan = plan_upload(hub, "lab/s", "model", release())
    server.add("lab/s", {"README.md": b"bobs"}, private=True, title="First", author="bob")
    with raises_error("KD-HUB-003", where="lab/s@main") as caught:
        upload(hub, plan)
    assert 'bob ("First")' in caught.value.why
    assert list(server.hashes("lab/s")) == ["README.md"]
