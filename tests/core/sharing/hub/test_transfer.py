"""A push that is killed at random points: nothing shows before the commit, little is sent twice, and it finishes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdkit.core.sharing.hub.transfer import SLICE
from tests.core.sharing.hub.conftest import CARD
from tests.core.sharing.hub.content import hashes
from tests.local_hub import LocalHub, local_hub

MB = 1 << 20
SIZES = {"model.safetensors": 16 * MB, "open_clip_model.safetensors": 6 * MB, "kdkit/task.safetensors": 2 * MB}
KILLS = 2
PUSH = """
import sys
from pathlib import Path
from kdkit.core.base.hub import connect
from kdkit.core.sharing.hub import plan_upload, upload
hub = connect()
print(upload(hub, plan_upload(hub, "lab/s", "model", Path(sys.argv[1])), tag="v1").commit)
"""
CONTENT = {"xet": "POST /xet/v1/xorbs/", "lfs": "PUT /lfs/"}
LOST = {"xet": SLICE + MB, "lfs": max(SIZES.values())}
"""At most, when a push is killed: what was on its way."""
AGAIN = {"xet": MB // 4, "lfs": 0}
"""Per slice: chunks at its borders are not those of the whole file."""


@pytest.mark.parametrize("mode", ["xet", "lfs"])
def test_killed_twice_then_once_more(tmp_path: Path, mode: str) -> None:
    folder = tmp_path / "release"
    for name, size in SIZES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(size))
    (folder / "README.md").write_bytes(CARD)
    dice = random.Random(0)
    with local_hub(tmp_path / "server", xet=mode == "xet") as server:
        server.fail(CONTENT[mode], times=10**9, rate=40 * MB)
        for _ in range(KILLS):
            push = start(server, folder)
            kill_at(server, push, mode, dice.uniform(0.2, 0.6) * (sum(SIZES.values()) - arrived(server)))
            for repository in server.repositories.values():
                assert server.hashes(repository.name) == {}, "nothing shows"
                assert repository.tags == {}
        last = start(server, folder)
        out, err = last.communicate(timeout=300)
        assert last.returncode == 0, err
        assert server.hashes("lab/s") == hashes(folder)
        assert server.repository("lab/s").tags == {"v1": out.strip()}
        assert [commit.title for commit in server.repository("lab/s").history(server.head("lab/s"))] == [
            "Push with kdkit",
            "initial commit",
        ]
        total = sum(SIZES.values())
        sent = server.received(CONTENT[mode])
        assert total <= sent <= total + KILLS * LOST[mode] + total // SLICE * AGAIN[mode] + MB


def start(server: LocalHub, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PUSH, str(folder)],
        env={**os.environ, **server.environment(), "HF_XET_CACHE": str(server.root / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def arrived(server: LocalHub) -> int:
    """Bytes that a killed push need not send again."""
    return sum(path.stat().st_size for room in ("store", "xet") for path in (server.root / room).glob("[!.]*"))


def kill_at(server: LocalHub, push: subprocess.Popen[str], mode: str, more: float) -> None:
    """Kill the push when that many more bytes have come."""
    target = server.received(CONTENT[mode]) + more
    while server.received(CONTENT[mode]) < target:
        assert push.poll() is None, push.communicate()[1]
        time.sleep(0.005)
    push.kill()
    push.communicate()
