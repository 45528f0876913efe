"""``python -m MODULE`` in processes of their own that find the large libraries imported.

Importing torch, transformers and open_clip takes longer than most commands of the tests. This script imports them once
and forks for each command. It imports nothing of kdkit: a command does so itself, as in any other process.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

LIBRARIES = (
    *("torch._dynamo", "torch.distributed", "torch.optim.swa_utils", "safetensors.torch", "accelerate", "h5py"),
    *("scipy.optimize", "matplotlib.figure", "PIL.Image", "pydantic", "rich.progress", "ruamel.yaml", "typer"),
    *("pluggy", "huggingface_hub.hf_api", "httpx2", "anyio.from_thread", "open_clip", "timm", "tokenizers"),
    *("transformers.generation.utils", "transformers.models.auto.modeling_auto"),
    *("transformers.models.qwen2_vl.modeling_qwen2_vl", "transformers.models.qwen2_vl.processing_qwen2_vl"),
)


class WarmPython:
    """This script in a process, until the end of this process.

    Args:
        environment: the variables that the libraries find when they are imported.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._requests, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal reaches pytest alone
            )
        atexit.register(process.wait)
        atexit.register(self._requests.shutdown, socket.SHUT_RDWR)  # runs before the line above: the script ends

    def start(
        self, *command: str, folder: Path, environment: Mapping[str, str], out: IO[str], err: IO[str]
    ) -> WarmProcess:
        """Run ``python -m *command`` in ``folder``."""
        request = {"command": command, "folder": str(folder), "environment": dict(environment)}
        ours, theirs = socket.socketpair()
        with theirs:
            streams = [out.fileno(), err.fileno(), theirs.fileno()]
            socket.send_fds(self._requests, [json.dumps(request).encode() + b"\n"], streams)
        return WarmProcess(ours)


class WarmProcess:
    """A process that :class:`WarmPython` has started."""

    def __init__(self, answers: socket.socket) -> None:
        self._answers, self._lines = answers, answers.makefile("rb")
        self.pid = int(self._lines.readline())

    def poll(self, timeout: float = 0) -> bool | None:
        """True after its end, else None."""
        return bool(select.select([self._answers], [], [], timeout)[0]) or None

    def wait(self, timeout: float) -> int:
        """The exit code. A process that takes longer is killed."""
        if not self.poll(timeout):
            os.kill(self.pid, signal.SIGKILL)
        with self._answers, self._lines:
            return int(self._lines.readline())


def serve(requests: socket.socket) -> None:
    """Run the command of each request in a fork; a process between the two waits for its end."""
    while True:
        request, streams, _, _ = socket.recv_fds(requests, 65536, 3)
        while request and not request.endswith(b"\n"):
            request += requests.recv(65536)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not request:
            return
        if not os.fork():
            requests.close()
            pid = os.fork()
            if not pid:
                os.close(streams.pop())
                run(streams, **json.loads(request))
                return
            os.write(streams[-1], b"%d\n" % pid)
            os.write(streams[-1], b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            os._exit(0)
        for stream in streams:
            os.close(stream)


def run(streams: Sequence[int], command: Sequence[str], folder: str, environment: Mapping[str, str]) -> None:
    """Become ``python -m *command``."""
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv[1:] = command[1:]
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        # The end of an interpreter, but for freeing each object of the libraries, which takes half a second.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)


if __name__ == "__main__":
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
