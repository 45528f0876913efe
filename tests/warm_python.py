"""Python in processes of their own that find the large libraries imported.

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
import site
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

LIBRARIES = (
    *("torch._dynamo", "torch.distributed", "torch.optim.swa_utils", "safetensors.torch", "accelerate", "h5py"),
    *("scipy.optimize", "matplotlib.figure", "PIL.Image", "pydantic", "rich.progress", "ruamel.yaml", "typer"),
    *("pluggy", "huggingface_hub.hf_api", "httpx2", "anyio.from_thread", "open_clip", "timm", "tokenizers"),
    *(
        "pandas",
        "pyarrow.compute",
        "cloudpickle",
        "snowballstemmer",
        "PIL.ImageFile",
        "safetensors.numpy",
        "pydantic.main",
    ),
    *("transformers.generation.utils", "transformers.models.auto.modeling_auto"),
    *("transformers.models.qwen2_vl.modeling_qwen2_vl", "transformers.models.qwen2_vl.processing_qwen2_vl"),
)


class WarmPython:
    """This script in a process, until the end of this process.

    Args:
        environment: the variables that the libraries find when they are imported.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        alive, theirs = socket.socketpair()
        with theirs, socket.socket(socket.AF_UNIX) as listener:
            listener.bind("")  # Linux finds an address
            listener.listen(64)
            self.address: bytes = listener.getsockname()
            fds = [listener.fileno(), theirs.fileno()]
            process = subprocess.Popen(
                [sys.executable, "-P", __file__, *map(str, fds)],
                env=environment,
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal reaches pytest alone
            )
        atexit.register(process.wait)
        atexit.register(alive.shutdown, socket.SHUT_RDWR)  # runs before the line above: the script ends


class WarmProcess:
    """``python *arguments`` in ``folder``, run by the :class:`WarmPython` at ``address``.

    Args:
        address: of the script.
        arguments: ``-m MODULE ...``, ``-c CODE ...`` or ``-P FILE ...``.
        python: the interpreter of a virtual environment that is used instead of this one; it has the same libraries.
    """

    def __init__(
        self,
        address: bytes,
        *arguments: str,
        folder: Path | str,
        environment: Mapping[str, str],
        out: IO[str],
        err: IO[str],
        python: Path | None = None,
    ) -> None:
        request = {"arguments": arguments, "folder": str(folder), "environment": dict(environment)}
        self._answers = socket.socket(socket.AF_UNIX)
        self._answers.connect(address)
        content = json.dumps(request | {"python": python and str(python)}).encode() + b"\n"
        sent = socket.send_fds(self._answers, [content], [out.fileno(), err.fileno()])
        self._answers.sendall(content[sent:])
        self._lines = self._answers.makefile("rb")
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


def warm_stock_checks(address: Callable[[], bytes]) -> None:
    """``subprocess.run`` uses a :class:`WarmPython` for the script by which kdkit lets stock libraries load exports."""
    cold = subprocess.run

    def run(args: Any, *more: Any, **options: Any) -> Any:
        if list(args[:2]) != [sys.executable, "-P"] or Path(args[2]).name != "stock_check.py":
            return cold(args, *more, **options)
        with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            folder, environment = options["cwd"], options["env"]
            process = WarmProcess(address(), *args[1:], folder=folder, environment=environment, out=out, err=err)
            code = process.wait(600)
            for stream in (out, err):
                stream.seek(0)
            return subprocess.CompletedProcess(args, code, out.read(), err.read())

    subprocess.run = run


def serve(listener: socket.socket, alive: socket.socket) -> None:
    """Run the command of each request in a fork; a process between the two waits for its end."""
    address = listener.getsockname()
    while alive not in select.select([listener, alive], [], [])[0]:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        client, _ = listener.accept()
        with client:
            if os.fork():
                continue
            listener.close()
            request, streams, _, _ = socket.recv_fds(client, 65536, 2)
            while request and not request.endswith(b"\n"):
                request += client.recv(65536)
            pid = os.fork() if request else os._exit(1)
            if not pid:
                client.close()
                warm_stock_checks(lambda: address)
                run(streams, **json.loads(request))
                return
            client.sendall(b"%d\n" % pid)
            client.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            os._exit(0)


def run(
    streams: Sequence[int], arguments: Sequence[str], folder: str, environment: Mapping[str, str], python: str | None
) -> None:
    """Become ``python *arguments``."""
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    read_settings()
    if python:
        sys.executable = python
        for packages in Path(python).parents[1].glob("lib/python*/site-packages"):
            site.addsitedir(str(packages))
    option, what, *rest = arguments
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:0] = {"-m": [folder], "-c": [""], "-P": []}[option]
    sys.argv = [what if option == "-P" else option, *rest]
    try:
        if option == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        elif option == "-P":
            runpy.run_path(what, run_name="__main__")
        else:
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(what, vars(main))
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        # The end of an interpreter, but for freeing each object of the libraries, which takes half a second.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)


def read_settings() -> None:
    """Hugging Face's libraries read their variables when they are imported: here, again."""
    from huggingface_hub import constants, hf_api

    before = dict(vars(constants))
    importlib.reload(constants)
    now = {name: value for name, value in vars(constants).items() if name.isupper() and before.get(name) != value}
    now["HF_MODULES_CACHE"] = os.path.join(constants.HF_HOME, "modules")
    for name in [name for name in sys.modules if name.startswith(("huggingface_hub.", "transformers."))]:
        found = vars(sys.modules[name])
        found.update({setting: now[setting] for setting in now.keys() & found.keys()})
    hf_api.api.endpoint = constants.ENDPOINT


if __name__ == "__main__":
    for name in LIBRARIES:
        importlib.import_module(name)
    sys.modules["PIL.Image"].init()  # imports all formats
    gc.freeze()
    serve(*(socket.socket(fileno=int(number)) for number in sys.argv[1:]))
