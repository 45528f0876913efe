"""A plan carried out: one commit, checked; or a clear refusal before anything is sent."""

from __future__ import annotations

import pytest
from huggingface_hub import constants

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub import Hub, connect
from kdkit.core.sharing.hub import plan_upload, upload
from tests.core.sharing.hub.conftest import BOB, MALLORY, READER, Release
from tests.core.sharing.hub.content import hashes
from tests.errors import raises_error
from tests.local_hub import LocalHub


def writes(server: LocalHub) -> list[str]:
    """What changed something, without addresses of contents."""
    lines = [request.line for request in server.requests if request.method != "GET"]
    return [line for line in lines if "validate-yaml" not in line]


def test_a_private_repository_is_made_filled_and_tagged(server: LocalHub, hub: Hub, release: Release) -> None:
    folder = release()
    done = upload(hub, plan_upload(hub, "lab/s", "model", folder), message="v1\n\nAll of it", tag="v1")
    repository = server.repository("lab/s")
    assert repository.private
    assert server.hashes("lab/s") == hashes(folder)
    assert repository.tags == {"v1": done.commit}
    assert repository.refs["main"] == done.commit
    assert [commit.title for commit in repository.history(server.head("lab/s"))] == ["v1", "initial commit"]
    assert (done.url, done.created, done.changed) == (f"{server.url}/lab/s", True, True)


def test_one_commit_mirrors_the_folder(server: LocalHub, hub: Hub, release: Release) -> None:
    server.add("lab/s", {"README.md": b"old", "old/a.json": b"{}", "model.safetensors": b"old"}, private=True)
    folder = release()
    done = upload(hub, plan_upload(hub, "lab/s", "model", folder))
    assert server.hashes("lab/s") == hashes(folder)
    assert server.head("lab/s").oid == done.commit
    assert len([line for line in writes(server) if "/commit/" in line]) == 1
    assert not done.created


def test_a_second_push_of_the_same_changes_nothing(server: LocalHub, hub: Hub, release: Release) -> None:
    folder = release()
    first = upload(hub, plan_upload(hub, "lab/s", "model", folder))
    server.requests.clear()
    again = upload(hub, plan_upload(hub, "lab/s", "model", folder))
    assert (again.commit, again.changed) == (first.commit, False)
    assert writes(server) == []
    tagged = upload(hub, plan_upload(hub, "lab/s", "model", folder), tag="v1")
    assert server.repository("lab/s").tags == {"v1": tagged.commit}
    assert upload(hub, plan_upload(hub, "lab/s", "model", folder), tag="v1").tag == "v1"


def test_a_data_set_and_a_public_model(server: LocalHub, hub: Hub, release: Release) -> None:
    upload(hub, plan_upload(hub, "lab/f", "dataset", release()))
    upload(hub, plan_upload(hub, "lab/s", "model", release()), private=False)
    assert server.repository("lab/f", "dataset").private
    assert not server.repository("lab/s").private


def test_xet_storage(xet_server: LocalHub, release: Release) -> None:
    hub = connect(xet_server.url, BOB.token)
    folder = release(9_500_000)
    upload(hub, plan_upload(hub, "lab/s", "model", folder))
    assert xet_server.hashes("lab/s") == hashes(folder)
    assert xet_server.head("lab/s").files["model.safetensors"].xet
    assert xet_server.received("PUT /lfs/") == 0
    assert 9_500_000 <= xet_server.received("/xorbs/") < 9_500_000 * 1.5, "slices are not sent twice"


def test_without_xet_storage_lfs_is_used_and_reported(
    server: LocalHub, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    hub, said = connect(server.url, BOB.token), Said()
    folder = release(2_000_000)
    upload(hub, plan_upload(hub, "lab/s", "model", folder), reporter=said)
    assert server.hashes("lab/s") == hashes(folder)
    (line,) = said.lines
    assert line.startswith(f"{server.url} ")
    assert "LFS" in line
    assert not constants.HF_HUB_DISABLE_XET


class Said:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shares: list[float] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:
        assert label == "sending", note
        self.shares.append(done / total)


def test_progress_never_goes_back_and_ends(hub: Hub, release: Release) -> None:
    said = Said()
    upload(hub, plan_upload(hub, "lab/s", "model", release(2_000_000)), reporter=said)
    assert said.shares == sorted(said.shares)
    assert said.shares[-1] == 1
    assert said.lines == []


def refused(hub: Hub, server: LocalHub, plan_of: object, **options: object) -> KdkitError:
    """The error of an upload; nothing has changed."""
    before = {key: dict(found.refs) for key, found in server.repositories.items()}
    with pytest.raises(KdkitError) as caught:
        upload(hub, plan_of, **options)  # type: ignore[arg-type]
    assert {key: dict(found.refs) for key, found in server.repositories.items()} == before
    return caught.value


def test_visibility_is_never_changed_by_a_push(server: LocalHub, hub: Hub, release: Release) -> None:
    server.add("lab/open", {"a": b""}, private=False)
    server.add("lab/closed", {"a": b""}, private=True)
    leak = refused(hub, server, plan_upload(hub, "lab/open", "model", release()))
    assert (leak.id, leak.code) == ("KD-HUB-036", ExitCode.DENIED)
    hidden = refused(hub, server, plan_upload(hub, "lab/closed", "model", release()), private=False)
    assert hidden.id == "KD-HUB-037"
    plan = plan_upload(hub, "lab/closed", "model", release())
    server.repository("lab/closed").private = False
    assert refused(hub, server, plan).id == "KD-HUB-036"
    assert server.received() == 0


def test_who_may_not_write_is_told_before_anything_is_sent(server: LocalHub, release: Release) -> None:
    server.add("lab/s", {"a": b""}, private=True)
    reader, mallory = connect(server.url, READER.token), connect(server.url, MALLORY.token)
    reading = plan_upload(reader, "lab/s", "model", release())
    assert refused(reader, server, reading, private=True).id == "KD-HUB-033"
    stranger = refused(mallory, server, plan_upload(mallory, "lab/s", "model", release()))
    assert stranger.id == "KD-HUB-035"
    server.add("lab/open", {"a": b""})
    outsider = refused(mallory, server, plan_upload(mallory, "lab/open", "model", release()), private=False)
    assert (outsider.id, outsider.code) == ("KD-HUB-020", ExitCode.DENIED)
    assert server.received() == 0


def test_a_tag_is_never_moved(server: LocalHub, hub: Hub, release: Release) -> None:
    first = upload(hub, plan_upload(hub, "lab/s", "model", release()), tag="v1")
    taken = refused(hub, server, plan_upload(hub, "lab/s", "model", release()), tag="v1")
    assert taken.id == "KD-HUB-034"
    assert first.commit[:12] in taken.why
    assert server.repository("lab/s").tags == {"v1": first.commit}


def test_a_card_that_the_hub_refuses_names_the_field_and_makes_nothing(
    server: LocalHub, hub: Hub, release: Release
) -> None:
    folder = release()
    (folder / "README.md").write_text("---\nlicense: gpl-99\ntags: clip\n---\n", encoding="utf-8")
    wrong = refused(hub, server, plan_upload(hub, "lab/s", "model", folder))
    assert wrong.code == ExitCode.FOUND
    assert '"license"' in wrong.why
    assert '"tags"' in wrong.why
    assert server.repositories == {}


def test_files_that_changed_since_the_plan_are_not_pushed(server: LocalHub, hub: Hub, release: Release) -> None:
    folder = release()
    plan = plan_upload(hub, "lab/s", "model", folder)
    (folder / "eval/results.json").write_text('{"accuracy": 1}', encoding="utf-8")
    (folder / "more.json").write_text("{}", encoding="utf-8")
    changed = refused(hub, server, plan)
    assert (changed.why.split(", "), changed.code) == (["eval/results.json", "more.json"], ExitCode.FOUND)
    assert server.requests[-1].line.split() == ["GET", "/api/models/lab/s/revision/main"]


def test_a_file_that_changes_while_it_is_sent_is_not_committed(
    xet_server: LocalHub, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdkit.core.sharing.hub import transfer

    folder, hub = release(3_000_000), connect(xet_server.url, BOB.token)
    plan = plan_upload(hub, "lab/s", "model", folder)
    send = transfer._send

    def meanwhile(*given: object) -> None:
        with (folder / "model.safetensors").open("r+b") as handle:
            handle.write(b"changed")
        send(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(transfer, "_send", meanwhile)
    with raises_error("KD-HUB-039"):
        upload(hub, plan)
    assert xet_server.hashes("lab/s") == {}


def test_a_pull_request_leaves_main_alone_and_can_be_continued(server: LocalHub, release: Release) -> None:
    server.add("lab/s", {"README.md": b"old"}, private=False)
    server.add("lab/s", {"README.md": b"older"})
    mallory, folder = connect(server.url, MALLORY.token), release()
    main = server.head("lab/s").oid
    done = upload(mallory, plan_upload(mallory, "lab/s", "model", folder), private=False, pull_request=True)
    assert (done.pull_request, done.url) == ("refs/pr/1", f"{server.url}/lab/s/discussions/1")
    assert server.head("lab/s").oid == main
    assert server.hashes("lab/s", "refs/pr/1") == hashes(folder)
    alice = connect(server.url, "hf_alice")
    (folder / "more.json").write_text("{}", encoding="utf-8")
    upload(alice, plan_upload(alice, "lab/s", "model", folder, revision="refs/pr/1"), private=False)
    assert server.hashes("lab/s", "refs/pr/1") == hashes(folder)
    assert len(server.repository("lab/s").pull_requests) == 1


def test_contradictory_options_are_refused(server: LocalHub, hub: Hub, release: Release) -> None:
    plan = plan_upload(hub, "lab/s", "model", release())
    assert refused(hub, server, plan, pull_request=True).id == "KD-HUB-030"
    assert refused(hub, server, plan, message=" ").id == "KD-HUB-028"
    assert refused(connect("https://other.example", "t"), server, plan).id == "KD-HUB-027"
    server.add("lab/s", {"a": b""}, private=True)
    plan = plan_upload(hub, "lab/s", "model", release())
    assert refused(hub, server, plan, pull_request=True, tag="v1").id == "KD-HUB-031"
