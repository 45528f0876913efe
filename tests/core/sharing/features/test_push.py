"""Pushed columns hold no ids and return bit for bit; columns that do not fit are refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub import Hub
from kdkit.core.contracts import SignalSpec
from kdkit.core.data.index import SampleIndex
from kdkit.core.features import Column, FeatureStore, Header
from kdkit.core.features.store.shard import Shard
from kdkit.core.project.licenses import LicenseFacts
from kdkit.core.project.project import Project
from kdkit.core.project.registry.lock import NOT_PUBLISHED, FileFact, Lock
from kdkit.core.sharing.features import PulledColumn, pull_features, push_features
from kdkit.core.sharing.features.card import CARD, README, RECORD, FeaturesRecord, SharedColumn, license_to_share
from kdkit.core.sharing.features.form import write_shared_form
from tests.core.features.sharing import FINGERPRINT, extracted, fill, lock_of, make_project
from tests.core.features.small import keyed_index
from tests.errors import raises_error
from tests.local_hub import LocalHub, local_hub

REPO = "alice/columns"


def found(column: Column, table: SampleIndex) -> np.ndarray[Any, Any]:
    rows = column.locate(table)
    assert (rows >= 0).all()
    return column.gather("image", rows)


# ------------------------------------------------------------------------------------ the form


def test_ids_stay_here_and_features_are_bitwise_the_same(tmp_path: Path) -> None:
    keys = [(f"patient-{i}", 1000 - i) for i in range(9)]
    store = FeatureStore(tmp_path / "features")
    fill(store, keys[:6])
    column = fill(store, keys[6:])
    store.put_texts("radio", FINGERPRINT, {"a ct": np.ones(3), "of an old class": np.zeros(3)})
    column = store.column("radio")
    shared = tmp_path / "shared" / "radio" / FINGERPRINT[:12]
    form = write_shared_form(column, keyed_index(keys), ["a ct", "not there"], shared)
    assert (form.rows, form.texts, form.ambiguous) == (9, 1, 0)
    assert not any(b"patient" in path.read_bytes() for path in shared.iterdir())
    mine, theirs = keyed_index(keys), keyed_index([(f"other-{digest}", digest) for _, digest in keys])
    came = FeatureStore(tmp_path / "shared").column("radio", FINGERPRINT)
    assert came.verify() == []
    assert list(came.texts) == ["a ct"]
    np.testing.assert_array_equal(found(column, mine), found(came, mine))
    np.testing.assert_array_equal(found(column, mine), found(came, theirs))
    assert came.locate(keyed_index([("patient-1", 1)])).tolist() == [-1], "another image is another sample"
    with h5py.File(shared / "shard-0000.h5") as file:
        assert (np.diff(file["digests"][:].astype(np.int64)) > 0).all()


def test_only_samples_of_the_data_are_shared_and_the_same_bytes_come_out(tmp_path: Path) -> None:
    keys = [(f"s{i}", i) for i in range(5)]
    column = fill(FeatureStore(tmp_path / "features"), keys)
    table = keyed_index([("s1", 1), ("s3", 3), ("s4", 44)])
    for name in ("one", "two"):
        assert write_shared_form(column, table, [], tmp_path / name).rows == 2
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["column.json", "shard-0000.h5"]
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


def test_a_digest_that_does_not_tell_samples_apart_is_left_out(tmp_path: Path) -> None:
    keys = [("twin-a", 7), ("twin-b", 7), ("question-1", 8), ("question-2", 8), ("alone", 9)]
    values = np.array([[1, 1, 1], [1, 1, 1], [2, 2, 2], [3, 3, 3], [4, 4, 4]], np.float16)
    column = fill(FeatureStore(tmp_path / "features"), keys, values)
    form = write_shared_form(column, keyed_index(keys), [], tmp_path / "out")
    assert (form.rows, form.ambiguous) == (2, 2)


def test_own_rows_come_before_shared_ones(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "features")
    fill(store, [("", 5)], np.full((1, 3), 5.0))
    column = fill(store, [("mine", 5)], np.full((1, 3), 6.0))
    both = keyed_index([("mine", 5), ("another", 5)])
    assert column.gather("image", column.locate(both))[:, 0].tolist() == [6, 5]


@pytest.mark.parametrize(
    ("facts", "public", "license", "why"),
    [
        (LicenseFacts(seen="mit"), True, "mit", ""),
        (LicenseFacts(seen="cc-by-nc-4.0"), True, "cc-by-nc-4.0", ""),
        (LicenseFacts(), False, "unknown", ""),
        (LicenseFacts(), True, "", "its license is unknown"),
        (LicenseFacts(seen="cc-by-nc-nd-4.0"), False, "", "allows no derivatives"),
        (LicenseFacts(seen="mit", distillation="forbidden", note="no outputs"), False, "", "no outputs"),
        (LicenseFacts(asserted="LicenseRef-Ours"), False, "LicenseRef-Ours", ""),
        (LicenseFacts(asserted="LicenseRef-Ours"), True, "", "not everybody's"),
    ],
)
def test_licenses_decide_who_may_share(facts: LicenseFacts, public: bool, license: str, why: str) -> None:
    if license:
        assert license_to_share("radio", facts, public=public) == license
        return
    with raises_error("KD-SHARE-003", where="teachers.radio") as caught:
        license_to_share("radio", facts, public=public)
    assert why in caught.value.why
    assert caught.value.code == ExitCode.DENIED


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"format": 9}', '{"format": 2}'])
def test_other_records_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "record").write_text(text)
    with raises_error("KD-SHARE-001", where="alice/x", code=ExitCode.MISSING):
        FeaturesRecord.load(tmp_path / "record", "alice/x")


def test_a_record_comes_back() -> None:
    column = SharedColumn(FINGERPRINT, {"a": "b"}, "hf:a/b", "c" * 40, "mit", {"image": "3 float16"}, 2, 1, {"ct": 2})
    record = FeaturesRecord("1.0", {"radio": column}, {"README.md": FileFact(size=1, sha256="0" * 64)})
    assert FeaturesRecord.from_bytes(record.to_bytes()) == record


# ------------------------------------------------------------------------------------- the Hub


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalHub]:
    with local_hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def author(tmp_path: Path) -> Project:
    project = make_project(tmp_path / "author")
    extracted(project)
    return project


def signed_in(local: LocalHub) -> Hub:
    return Hub(local.url, "hf_alice")


def contents(project: Project) -> dict[str, bytes]:
    """Everything in the project but the fetched state."""
    files = (path for path in project.root.rglob("*") if path.is_file() and ".kdkit" not in path.parts)
    return {path.relative_to(project.root).as_posix(): path.read_bytes() for path in files}


def tampered(local: LocalHub, change: dict[str, bytes | None]) -> None:
    """Somebody commits other files."""
    names = local.hashes(REPO, kind="dataset")
    files = {path: local.store.path(local.head(REPO, kind="dataset").files[path].oid) for path in names}
    held = {path: at.read_bytes() if at.exists() else b"" for path, at in files.items()}
    for path, file in local.head(REPO, kind="dataset").files.items():
        if file.sha256:
            held[path] = local.store.path(file.sha256).read_bytes()
    for path, content in change.items():
        if content is None:
            del held[path]
        else:
            held[path] = content
    local.add(REPO, held, "dataset", private=True)


def test_columns_travel_and_gather_is_bitwise_the_same(author: Project, local: LocalHub, tmp_path: Path) -> None:
    from kdkit.core.data import load_index

    dry = push_features(author, REPO, hub=signed_in(local), dry_run=True)
    assert dry.uploaded is None
    assert not local.repositories
    done = push_features(author, REPO, hub=signed_in(local))
    assert done.uploaded is not None
    assert local.repository(REPO, "dataset").private
    assert sorted(local.hashes(REPO, kind="dataset")) == sorted(
        [
            README,
            CARD,
            RECORD,
            *(f"features/radio/{FINGERPRINT[:12]}/{n}" for n in ("column.json", "shard-0000.h5", "texts.safetensors")),
        ]
    )
    for file in local.root.joinpath("store").rglob("*"):
        assert not file.is_file() or not any(word in file.read_bytes() for word in (b"a-0", b"models/radio", b"author"))
    other = make_project(tmp_path / "other", names="b")
    (pulled,) = pull_features(other, REPO, hub=signed_in(local))
    assert pulled == PulledColumn("radio", FINGERPRINT, rows=6, here=0, texts=2)
    mine, theirs = FeatureStore(author.features).column("radio"), FeatureStore(other.features).column("radio")
    np.testing.assert_array_equal(found(mine, load_index(author)), found(theirs, load_index(other)))
    np.testing.assert_array_equal(mine.text_features(["a ct of l1"]), theirs.text_features(["a ct of l1"]))
    before = contents(other)
    (again,) = pull_features(other, REPO, hub=signed_in(local))
    assert (again.rows, again.here, again.texts) == (0, 1, 0)
    assert contents(other) == before
    assert push_features(author, REPO, hub=signed_in(local)).plan.empty
    card = local.store.path(local.head(REPO, kind="dataset").files["README.md"].oid).read_text(encoding="utf-8")
    assert "license: mit" in card
    (row,) = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| radio | `")]
    assert row == ["radio", f"`local:{NOT_PUBLISHED}`", "mit", "image 3 float16", "6", "2"]


def test_a_pull_adds_and_replaces_nothing(author: Project, local: LocalHub, tmp_path: Path) -> None:
    from kdkit.core.data import load_index

    push_features(author, REPO, hub=signed_in(local))
    other = make_project(tmp_path / "other", names="b", pictures=8)
    table = load_index(other)
    keys = list(zip(table.ids, table.digests.tolist(), strict=True))
    store = FeatureStore(other.features)
    own = fill(store, keys[4:], np.full((4, 3), 9.0))
    store.put_texts("radio", FINGERPRINT, {"a ct of l1": np.full(3, 7.0)})
    pull_features(other, REPO, ["radio"], hub=signed_in(local))
    column = store.column("radio")
    assert (column.shards[0].path.read_bytes(), len(column.shards)) == (own.shards[0].path.read_bytes(), 2)
    values = found(column, table)
    assert (values[4:] == 9).all()
    assert not (values[:4] == 9).any()
    assert column.text_features(["a ct of l0", "a ct of l1"])[:, 0].tolist() == [0, 7]


def test_features_of_another_state_of_the_teacher_are_refused(author: Project, local: LocalHub, tmp_path: Path) -> None:
    push_features(author, REPO, hub=signed_in(local))
    other = make_project(tmp_path / "other")
    Lock().with_teacher("radio", lock_of("cd" * 32)).save(other.lock_path)
    before = contents(other)
    differing = ("'radio'", "abababababab there", "cdcdcdcdcdcd in registry.lock", "weights")
    with raises_error("KD-SHARE-006", where="alice/columns", mentions=differing):
        pull_features(other, REPO, hub=signed_in(local))
    Lock().save(other.lock_path)
    with raises_error("KD-SHARE-005", where="alice/columns"):
        pull_features(other.reloaded(), REPO, hub=signed_in(local))
    with raises_error("KD-SHARE-004", where="alice/columns", mentions=("'radoi'", "'radio'")):
        pull_features(other.reloaded(), REPO, ["radoi"], hub=signed_in(local))
    Lock().save(other.lock_path)
    assert contents(other).keys() == before.keys()
    assert not (other.root / "features").exists()


SHARD = f"features/radio/{FINGERPRINT[:12]}/shard-0000.h5"


def test_what_people_added_or_edited_stays_and_is_not_pulled(author: Project, local: LocalHub, tmp_path: Path) -> None:
    push_features(author, REPO, hub=signed_in(local))
    more: dict[str, bytes | None] = {"features/radio/abababababab/shard-0001.h5": b"more", "notes.md": b"mine"}
    card = local.store.path(local.head(REPO, kind="dataset").files[README].oid).read_bytes()
    tampered(local, {**more, README: card + b"\n## Thanks\n\nEve.\n"})
    before = local.hashes(REPO, kind="dataset")
    assert push_features(author, REPO, hub=signed_in(local)).plan.empty
    assert local.hashes(REPO, kind="dataset") == before
    other = make_project(tmp_path / "other", names="b")
    assert [column.rows for column in pull_features(other, REPO, hub=signed_in(local))] == [6]
    assert [path.name for path in (other.root / "features").rglob("*.h5")] == ["shard-0000.h5"]
    push_features(author, REPO, hub=signed_in(local), delete=True)
    assert not local.hashes(REPO, kind="dataset").keys() & more.keys()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({SHARD: b"something else"}, "'features/radio/abababababab/shard-0000.h5' was changed"),
        ({SHARD: None}, "'features/radio/abababababab/shard-0000.h5' is missing"),
    ],
)
def test_what_was_tampered_with_is_refused_and_named(
    author: Project, local: LocalHub, tmp_path: Path, change: dict[str, bytes | None], what: str
) -> None:
    push_features(author, REPO, hub=signed_in(local))
    tampered(local, change)
    other = make_project(tmp_path / "other")
    with pytest.raises(KdkitError, match=what) as caught:
        pull_features(other, REPO, hub=signed_in(local))
    assert caught.value.code == ExitCode.FOUND
    assert not (other.root / "features").exists()
    assert not [path for path in (other.root / ".kdkit").rglob("*") if path.is_file()]
    old = local.repository(REPO, "dataset").resolve("main")
    assert old is not None
    assert old.parent is not None
    (pulled,) = pull_features(other, REPO, revision=old.parent, hub=signed_in(local))
    assert pulled.rows == 6


def test_a_damaged_shard_is_refused_even_where_the_record_agrees(
    author: Project, local: LocalHub, tmp_path: Path
) -> None:
    (path,) = (author.features / "radio" / FINGERPRINT[:12]).glob("shard-*.h5")
    push_features(author, REPO, hub=signed_in(local))
    files = local.head(REPO, kind="dataset").files
    shard, record = (local.store.path(files[n].sha256 or files[n].oid).read_bytes() for n in (SHARD, RECORD))
    at = shard.index(np.float16(Shard(path).arrays["image"][0, 0]).tobytes())
    spoilt = shard[:at] + b"\x00\x01" + shard[at + 2 :]
    from hashlib import sha256

    changed = record.replace(sha256(shard).hexdigest().encode(), sha256(spoilt).hexdigest().encode())
    tampered(local, {SHARD: spoilt, RECORD: changed})
    other = make_project(tmp_path / "other")
    with raises_error("KD-SHARE-008"):
        pull_features(other, REPO, hub=signed_in(local))
    assert not (other.root / "features").exists()


def test_an_interrupted_pull_goes_on(author: Project, local: LocalHub, tmp_path: Path) -> None:
    push_features(author, REPO, hub=signed_in(local))
    other = make_project(tmp_path / "other")
    local.fail("GET .*/texts.safetensors", status=404, code="EntryNotFound", times=1)
    with raises_error("KD-HUB-017"):
        pull_features(other, REPO, hub=signed_in(local))
    assert not (other.root / "features").exists()
    sent = len([r for r in local.requests if r.line.startswith("GET") and "shard-0000" in r.line])
    assert pull_features(other, REPO, hub=signed_in(local))[0].rows == 6
    assert sent == len([r for r in local.requests if r.line.startswith("GET") and "shard-0000" in r.line])


def test_columns_of_others_are_not_deleted_unasked(local: LocalHub, tmp_path: Path) -> None:
    both = make_project(tmp_path / "both", teachers=("radio", "eye"))
    extracted(both)
    shutil.copytree(both.features / "radio", both.features / "eye")
    for path in (both.features / "eye").rglob("column.json"):
        path.write_text(path.read_text().replace('"radio"', '"eye"'))
    for path in (both.features / "eye").rglob("shard-*.h5"):
        with h5py.File(path, "r+") as file:
            file.attrs["kdkit"] = file.attrs["kdkit"].replace('"radio"', '"eye"')
    push_features(both, REPO, hub=signed_in(local))
    with raises_error("KD-SHARE-012", where="alice/columns"):
        push_features(both, REPO, ["eye"], hub=signed_in(local))
    push_features(both, REPO, ["eye"], delete=True, hub=signed_in(local))
    assert not any("radio" in path for path in local.hashes(REPO, kind="dataset"))


def test_features_from_which_texts_can_be_read_are_not_shared(author: Project, local: LocalHub) -> None:
    tokens = Header("radio", FINGERPRINT[:8] + "cd" * 28, {}, (SignalSpec("tokens", (4,), "int32"),))
    FeatureStore(author.features).create(tokens)
    lock = Lock.load(author.lock_path)
    lock.with_teacher("radio", lock_of(tokens.fingerprint)).save(author.lock_path)
    for named in ([], ["radio"]):
        with raises_error("KD-SHARE-009") as caught:
            push_features(author.reloaded(), REPO, named, hub=signed_in(local))
        assert caught.value.code == ExitCode.DENIED
    assert not local.repositories


def test_what_cannot_be_pushed_is_said(author: Project, local: LocalHub, tmp_path: Path) -> None:
    with raises_error("KD-FEAT-015", mentions=("'eye'",)):
        push_features(author, REPO, ["eye"], hub=signed_in(local))
    with raises_error("KD-SHARE-010"):
        push_features(make_project(tmp_path / "empty"), REPO, hub=signed_in(local))
    text = author.registry_path.read_text(encoding="utf-8")
    author.registry_path.write_text(text.replace("loader: open_clip", "loader: open_clip, license: cc-by-nd-4.0"))
    with raises_error("KD-SHARE-003", where="teachers.radio", mentions=("'radio'",)) as caught:
        push_features(Project(author.root), REPO, hub=signed_in(local))
    assert caught.value.code == ExitCode.DENIED
    assert not local.repositories
