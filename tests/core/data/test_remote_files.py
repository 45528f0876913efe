"""Files of web servers."""

from __future__ import annotations

import threading
from typing import ClassVar

from kdkit.core.data import remote_files
from tests.core.data.test_remote import Server
from tests.loopback import serving


def test_shards_of_a_web_server_are_asked_for_together() -> None:
    """No answer is sent before all requests are here: one after the other would end by the barrier's timeout."""
    together = threading.Barrier(remote_files.AT_ONCE, timeout=10)

    class Waits(Server):
        files: ClassVar[dict[str, bytes]] = {f"/{n}.tar": bytes(n) for n in range(remote_files.AT_ONCE)}

        def do_HEAD(self) -> None:
            together.wait()
            super().do_HEAD()

    with serving(Waits) as address:
        url = f"{address}/{{0..{remote_files.AT_ONCE - 1}}}.tar"
        found = remote_files.HttpFiles(url).find(url, ".tar")
    assert [(file.name, file.size) for file in found] == [(f"{n}.tar", n) for n in range(remote_files.AT_ONCE)]
