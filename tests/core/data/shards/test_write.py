"""Shards hold the samples of a data entry, byte for byte; every row is written or counted; nothing is half written."""

from __future__ import annotations

import json
import os
import signal
import tarfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdkit.core.contracts import Silent
from kdkit.core.data import load_index
from kdkit.core.data.images import open_image
from kdkit.core.data.index import SampleIndex
from kdkit.core.data.locations import read_content
from kdkit.core.data.shards import ShardRequest, plan_shards, write_shards
from kdkit.core.data.shards.plan import ShardReport
from kdkit.core.project.project import Project
from tests.conftest import Cli
from tests.core.data.projects import make_project, row, write_registry
from tests.errors import raises_error
from tests.local_hub import LocalHub, local_hub
from tests.local_hub.faults import Fault, Faults
from tests.plugins.sources.archives import png, write_parquet

CAPTION = "a scan"


def write(root: Path, to: str = "shards", **options: Any) -> ShardReport:
    return write_shards(Project(root), ShardRequest(root / to, **options), Silent())


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def facts(index: SampleIndex) -> list[tuple[object, ...]]:
    """All that training reads of the samples."""
    return [
        (*(getattr(one, name) for name in ("id", "text", "domain", "label", "split", "extra")), read_content(one.image))
        for one in index.samples
    ]


def same_samples(root: Path, to: str = "shards", entry: Mapping[str, Any] | None = None) -> None:
    """The project reads the same samples, with the same digests, of the shards."""
    before = load_index(Project(root))
    write_registry(root, [{"source": "webdataset", "path": to, **(entry or {})}])
    after = load_index(Project(root))
    assert facts(after) == facts(before)
    assert (after.digests == before.digests).all()
    assert (before.caption_groups is None) == (after.caption_groups is None)


def test_samples_and_bytes_are_those_of_the_source(tmp_path: Path) -> None:
    rows = [row(i, group=f"p{i // 3}" if i % 5 else None, label=None if i % 7 == 0 else "mass") for i in range(24)]
    rows = [{**one, "age": number} for number, one in enumerate(rows)]
    rows[3] |= {"age": 71.5, "text": "größer als 5 µm\nzweite Zeile", "id": "x/y.z 3"}
    make_project(tmp_path, rows, {"metadata": ["age"]})
    done = write(tmp_path, rows_per_shard=7)
    assert [shard[:2] for shard in done.shards] == [
        ("shard-000000.tar", 7), ("shard-000001.tar", 7), ("shard-000002.tar", 7), ("shard-000003.tar", 3)
    ]  # fmt: skip
    assert (done.rows, done.written, done.left_out) == (24, 24, {})
    same_samples(tmp_path)


def test_a_shard_is_cut_by_size_and_a_large_sample_gets_its_own(tmp_path: Path) -> None:
    make_project(tmp_path, [row(i) for i in range(4)])
    (tmp_path / "data" / "1.png").write_bytes(png(1, (16, 16)) + bytes(1_200_000))
    done = write(tmp_path, shard_mb=1)
    assert [rows for _, rows, _ in done.shards] == [1, 1, 2]


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    make_project(tmp_path, [row(i) for i in range(9)])
    write(tmp_path, "a", rows_per_shard=4)
    write(tmp_path, "b", rows_per_shard=4)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
    write(tmp_path, "a", rows_per_shard=4)  # complete: nothing is written again
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()} == before


def test_a_seed_gives_a_fixed_order(tmp_path: Path) -> None:
    make_project(tmp_path, [row(i) for i in range(12)])
    orders = []
    for to, seed in (("a", 1), ("b", 1), ("c", 2)):
        write(tmp_path, to, shuffle=seed)
        write_registry(tmp_path, [{"source": "webdataset", "path": to}])
        orders.append(list(load_index(Project(tmp_path)).ids))
        write_registry(tmp_path, [{"source": "jsonl", "path": "data/samples.jsonl"}])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == sorted(f"s{i}" for i in range(12))
    assert orders[0] == ["s10", "s8", "s1", "s9", "s3", "s11", "s0", "s5", "s7", "s2", "s4", "s6"]  # on any machine


def test_other_splits_are_counted(tmp_path: Path) -> None:
    make_project(tmp_path, [row(i) for i in range(9)])
    done = write(tmp_path, splits=("train", "test"))
    assert (done.written, done.left_out) == (6, {"of other splits": 3})
    planned = plan_shards(Project(tmp_path), ShardRequest(tmp_path / "other", splits=("train",)), Silent())
    assert (planned.rows, planned.chosen, planned.splits) == (9, 3, {"train": 3, "calibration": 0, "test": 0})
    assert not (tmp_path / "other").exists()
    total = sum(size for _, _, size in done.shards)
    assert planned.image_bytes < planned.size < total
    with raises_error("KD-DATA-513"):
        ShardRequest(tmp_path, splits=("val",))


def test_rows_without_an_image_stop_or_are_counted(tmp_path: Path) -> None:
    make_project(tmp_path, [row(i) for i in range(9)])
    (tmp_path / "data" / "2.png").write_bytes(b"")
    (tmp_path / "data" / "5.png").write_bytes(b"<html>")
    (tmp_path / "data" / "8.png").unlink()
    with raises_error("KD-SRC-511", mentions=("s2", "--skip-unreadable")):
        write(tmp_path, rows_per_shard=2)
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == []
    done = write(tmp_path, rows_per_shard=2, skip_unreadable=True)
    assert done.written + sum(done.left_out.values()) == done.rows == 9
    assert sorted(done.left_out) == ["No such file or directory", "the image is empty", "unknown format of the image"]
    manifest = json.loads((tmp_path / "shards" / "shards.json").read_text(encoding="utf-8"))
    assert [one["id"] for one in manifest["left_out"]] == ["s2", "s5", "s8"]
    for i in range(9):
        (tmp_path / "data" / f"{i}.png").write_bytes(b"")
    with raises_error("KD-SRC-512"):
        write(tmp_path, "none", skip_unreadable=True)


def test_captions_of_an_image_share_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = [{"image": f"{n}.png", "captions": [f"scan {n}", "again", f"third {n}"][: n % 3 + 1]} for n in range(9)]
    for n in range(9):
        (data / f"{n}.png").write_bytes(png(n))
    (data / "train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    write_registry(tmp_path, [{"source": "pmc-jsonl", "path": "data", "options": {"constants": {"domain": "ct"}}}])
    done = write(tmp_path, rows_per_shard=5)
    assert [rows for _, rows, _ in done.shards] == [3, 4, 5, 3, 3]
    members = list[str]()
    for shard, _, _ in done.shards:
        with tarfile.open(tmp_path / "shards" / shard) as archive:
            members += archive.getnames()
    assert sum(name.endswith(".png") for name in members) == 9
    groups = load_index(Project(tmp_path)).caption_groups
    assert groups is not None
    same_samples(tmp_path)
    after = load_index(Project(tmp_path)).caption_groups
    assert after is not None
    assert (groups[:, None] == groups[None]).tolist() == (after[:, None] == after[None]).tolist()


def test_what_shards_cannot_hold_is_refused(tmp_path: Path) -> None:
    make_project(tmp_path, [row(0, extra={"images": ["1.png"]}), row(1)])
    with raises_error("KD-DATA-518", mentions=("several images",)):
        write(tmp_path)
    assert not (tmp_path / "shards").exists()
    (tmp_path / "images" / "train" / "ct" / "mass").mkdir(parents=True)
    (tmp_path / "images" / "train" / "ct" / "mass" / "a.png").write_bytes(png(0))
    write_registry(tmp_path, [{"source": "folder", "path": "images"}])
    with raises_error("KD-SRC-513"):
        write(tmp_path, "images/shards")


def test_values_that_the_source_would_change_are_refused(tmp_path: Path) -> None:
    """A folder may end in a space; the fields of a shard may not."""
    folder = tmp_path / "images" / "train" / "ct" / "mass "
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(png(0))
    write_registry(tmp_path, [{"source": "folder", "path": "images"}])
    with raises_error("KD-DATA-510", mentions=("text", "mass")):
        write(tmp_path)
    assert not (tmp_path / "shards").exists()


def test_arrays_become_png_on_request(tmp_path: Path) -> None:
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 3), dtype=np.uint8)
    arrays = {f"{split}_{name}": value for split in ("train", "val", "test") for name, value in
              (("images", pixels), ("labels", np.arange(6).reshape(6, 1) % 2))}  # fmt: skip
    np.savez(tmp_path / "toy.npz", allow_pickle=False, **arrays)
    options = {"labels": ["normal", "cyst"], "domain": "ct"}
    write_registry(tmp_path, [{"source": "medmnist", "path": "toy.npz", "options": options}])
    with raises_error("KD-DATA-519", mentions=("array", "--png")):
        write(tmp_path)
    before = [(one.id, open_image(one).tobytes()) for one in load_index(Project(tmp_path)).samples]
    assert write(tmp_path, png=True).written == 18
    write_registry(tmp_path, [{"source": "webdataset", "path": "shards"}])
    assert [(one.id, open_image(one).tobytes()) for one in load_index(Project(tmp_path)).samples] == before


def test_the_entry_is_chosen_and_replaced(tmp_path: Path) -> None:
    make_project(tmp_path, [row(i) for i in range(6)])
    options = {"id_prefix": "b-", "skip_unreadable": True, "max_pixels": 10_000}
    entries: Sequence[Mapping[str, Any]] = [
        {"source": "jsonl", "path": "data/samples.jsonl"},
        {"source": "jsonl", "path": "data/../data/samples.jsonl", "options": options, "license": "mit"},
    ]
    write_registry(tmp_path, entries)
    for named in ("", "3", "nothing"):
        with raises_error("KD-DATA-512"):
            write(tmp_path, entry=named)
    before = facts(load_index(Project(tmp_path)))
    done = write(tmp_path, entry="2", replace=True)
    assert done.replaced
    kept = {"skip_unreadable": True, "max_pixels": 10_000}
    changed = Project(tmp_path).registry.data
    assert [(one.source, one.path, one.license, dict(one.options)) for one in changed] == [
        ("jsonl", "data/samples.jsonl", None, {}), ("webdataset", "shards", "mit", kept)
    ]  # fmt: skip
    assert facts(load_index(Project(tmp_path))) == before
    with raises_error("KD-DATA-513"):
        ShardRequest(tmp_path, replace=True, shuffle=1)


def test_shards_of_other_data_are_not_continued(tmp_path: Path) -> None:
    make_project(tmp_path, [row(i) for i in range(9)])
    (tmp_path / "data" / "7.png").write_bytes(b"")
    with raises_error("KD-SRC-511"):
        write(tmp_path, rows_per_shard=2)
    assert len(list((tmp_path / "shards").glob("*.tar"))) == 3
    with raises_error("KD-DATA-514", mentions=("options",)):
        write(tmp_path, rows_per_shard=3)
    (tmp_path / "data" / "7.png").write_bytes(png(7))
    with raises_error("KD-DATA-514", mentions=("files",)):
        write(tmp_path, rows_per_shard=2)
    write(tmp_path, "whole", rows_per_shard=2)
    os.truncate(tmp_path / "whole" / "shard-000001.tar", 5)
    with raises_error("KD-DATA-515", mentions=("shard-000001.tar",)):
        write(tmp_path, "whole", rows_per_shard=2)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "a.txt").write_text("a", encoding="utf-8")
    with raises_error("KD-DATA-515", mentions=("a.txt",)):
        write(tmp_path, "foreign")


def test_data_that_change_meanwhile_are_told(tmp_path: Path) -> None:
    make_project(tmp_path, [row(i) for i in range(6)])

    class Changes(Silent):
        def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002
            if label == "writing shards" and done == 4:
                (tmp_path / "data" / "0.png").write_bytes(png(99))

    with raises_error("KD-DATA-516"):
        write_shards(Project(tmp_path), ShardRequest(tmp_path / "shards", rows_per_shard=2), Changes())
    assert not json.loads((tmp_path / "shards" / "shards.json").read_text(encoding="utf-8"))["complete"]


def test_a_full_disk_leaves_whole_shards(kdkit_cli: Cli) -> None:
    """A real limit of the size of files stands for the disk; the same command then continues."""
    make_project(kdkit_cli.folder, [row(i) for i in range(8)])
    (kdkit_cli.folder / "data" / "5.png").write_bytes(png(5) + bytes(3_000_000))
    command = ("data", "shards", "--to", "shards", "--rows-per-shard", "2")
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)); "
    limited += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += f"sys.argv = ['kdkit', *{command!r}]; from kdkit.cli.main import run; run()"
    done = kdkit_cli.warm("-c", limited)
    assert (done.code, done.error) == (3, "KD-BASE-002"), done.stderr
    left = sorted(path.name for path in (kdkit_cli.folder / "shards").iterdir())
    assert left == ["shard-000000.tar", "shard-000001.tar", "shards.json"]
    done = kdkit_cli(*command)
    assert done.code == 0, done.stderr
    assert "continuing after 2 shards, 4 of 8 samples" in done.stderr
    kdkit_cli("data", "shards", "--to", "at-once", "--rows-per-shard", "2")
    assert tree(kdkit_cli.folder / "shards") == tree(kdkit_cli.folder / "at-once")


# ------------------------------------------------------------------------------ a data set of the Hub

FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["normal", "cyst"], "_type": "ClassLabel"}}
METADATA = {"huggingface": json.dumps({"info": {"features": FEATURES}})}


class Stalls(Faults):
    """Answers no file after so many; a client waits for it until the test ends."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left, self.end = after, threading.Event()

    def take(self, request: str) -> Fault | None:
        if "/resolve/" in request:
            with self._lock:
                self.left -= 1
                stalled = self.left < 0
            if stalled:
                self.end.wait(600)
        return super().take(request)


def scans(folder: Path, first: int, count: int) -> bytes:
    """A Parquet file with groups of two rows, and a second column of images that no command needs."""
    numbers = range(first, first + count)
    cells = [{"bytes": png(n), "path": f"{n}.png"} for n in numbers]
    columns: dict[str, Sequence[object]] = {
        "image": cells,
        "caption": [f"scan {n}" for n in numbers],
        "label": [n % 2 for n in numbers],
    }
    columns["mask"] = [os.urandom(20_000) for _ in numbers]
    return write_parquet(folder / "part.parquet", columns, row_group=2, metadata=METADATA).read_bytes()


def hub_project(root: Path, hub: LocalHub) -> None:
    commit = hub.head("lab/scans", kind="dataset").oid
    options = {"columns": {"text": "caption"}, "constants": {"domain": "ct"}}
    entry = {"source": "hf-dataset", "path": f"hf://datasets/lab/scans@{commit}", "license": "mit", "options": options}
    root.mkdir()
    write_registry(root, [entry])


def test_a_data_set_of_the_hub_is_streamed_and_continued_after_a_kill(kdkit_cli: Cli) -> None:
    folder = kdkit_cli.folder
    with local_hub(folder / "server") as hub:
        files = {f"data/{name}": scans(folder, first, count) for name, first, count in
                 (("train-00000-of-00002.parquet", 0, 12), ("train-00001-of-00002.parquet", 12, 6),
                  ("validation-00000-of-00001.parquet", 18, 6))}  # fmt: skip
        hub.add("lab/scans", files, "dataset")
        environment = {**hub.environment(), "HF_HUB_DISABLE_XET": "1"}
        for name in ("whole", "killed", "ordinary"):
            hub_project(folder / name, hub)
        command = ("data", "shards", "--rows-per-shard", "4", "--to")
        done = kdkit_cli(*command, "whole-shards", "-C", "whole", "--json", env=environment)
        assert done.code == 0, done.stderr
        assert (done.json["rows"], done.json["written"], done.json["skipped"]) == (24, 24, {})
        assert done.json["entry"] == {"source": "webdataset", "path": "../whole-shards", "license": "mit"}
        assert asked_for(hub) < sum(map(len, files.values())) / 2  # the masks are never fetched
        assert not list((folder / "whole" / ".kdkit").rglob("*.parquet"))

        planned = kdkit_cli(*command, "killed-shards", "-C", "killed", "--dry-run", "--json", env=environment).json
        assert (planned["chosen"], planned["splits"]) == (24, {"train": 18, "calibration": 6, "test": 0})
        assert 12 * planned["largest_part"] >= planned["fetched"] > 24 * 700
        (here,) = (folder / "killed" / ".kdkit").rglob("train-00000-of-00002.parquet")
        assert here.stat().st_blocks * 512 < here.stat().st_size / 2  # without its images

        hub.faults = Stalls(after=10)  # of 12 groups; as three are fetched ahead, the first seven are among them
        with open(folder / "log", "w+", encoding="utf-8") as log:
            process = kdkit_cli.start(*command, "killed-shards", "-C", "killed", env=environment, out=log, err=log)
            wait_for_shards(folder / "killed-shards", 3)
            os.kill(process.pid, signal.SIGKILL)
            process.wait(300)
        hub.faults.end.set()
        hub.faults = Faults()
        kept = len(json.loads((folder / "killed-shards" / "shards.json").read_bytes())["shards"])
        assert 3 <= kept < 6
        begun = len(hub.requests)
        done = kdkit_cli(*command, "killed-shards", "-C", "killed", "--replace", env=environment)
        assert done.code == 0, done.stderr
        assert f"continuing after {kept} shards, {4 * kept} of 24 samples" in done.stderr
        assert sum("/resolve/" in one.line for one in hub.requests[begun:]) == 12 - 2 * kept  # the other groups alone
        whole, killed = tree(folder / "whole-shards"), tree(folder / "killed-shards")
        assert len(whole) == 6 + 1
        assert whole == killed

        done = kdkit_cli("data", "check", "-C", "ordinary", "--json", env=environment)
        assert done.code == 0, done.stderr
        index = load_index(Project(folder / "killed"))
        options = {"columns": {"text": "caption"}, "constants": {"domain": "ct"}}
        (fetched,) = {path.parent.parent for path in (folder / "ordinary" / ".kdkit").rglob("*.parquet")}
        write_registry(folder / "ordinary", [{"source": "hf-dataset", "path": str(fetched), "options": options}])
        assert facts(index) == facts(load_index(Project(folder / "ordinary")))


def asked_for(hub: LocalHub) -> int:
    """Bytes of files that clients asked for, all by range."""
    ranges = [one.headers["range"].removeprefix("bytes=") for one in hub.requests if "/resolve/" in one.line]
    return sum(int(last) - int(first) + 1 for first, _, last in (text.partition("-") for text in ranges))


def wait_for_shards(folder: Path, count: int) -> None:
    """Until the manifest names at least so many; it will, because all that they need is answered."""
    for _ in range(30_000):
        path = folder / "shards.json"
        if path.is_file() and len(json.loads(path.read_bytes())["shards"]) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(sorted(folder.glob("*")))


def test_a_connection_that_breaks_is_continued(kdkit_cli: Cli) -> None:
    folder = kdkit_cli.folder
    with local_hub(folder / "server") as hub:
        hub.add("lab/scans", {"data/train-00000-of-00001.parquet": scans(folder, 0, 8)}, "dataset")
        hub_project(folder / "p", hub)
        hub.fail("GET .*/resolve/", times=1, cut="response")
        environment = {**hub.environment(), "HF_HUB_DISABLE_XET": "1"}
        done = kdkit_cli("data", "shards", "--to", "s", "-C", "p", "--json", env=environment)
        assert (done.code, done.json["written"]) == (0, 8), done.stderr
