"""Work in a thread that can be left behind: its result, its errors, its output, and how the process ends."""

from __future__ import annotations

import threading

import pytest

from kdkit.core.plugin_system.time_limit import Failed, Unfinished, run_apart
from tests.conftest import Cli


def test_the_result_comes_back() -> None:
    assert run_apart(lambda: 7, 5) == 7


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_what_it_raises_is_told_apart_from_what_happens_to_us(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(Failed) as caught:
        run_apart(work, 5)
    assert caught.value.error is error


def test_its_output_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    run_apart(lambda: print("inside"), 5)
    print("outside")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("outside\n", "inside\n")


def test_it_is_left_behind_after_the_limit_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    enough, printed = threading.Event(), threading.Semaphore(0)

    def work() -> None:
        while not enough.wait(0.01):
            print("noise")
            printed.release()

    with pytest.raises(Unfinished) as caught:
        run_apart(work, 0.5, __name__)
    assert caught.value.place.startswith(f"{__file__}:")
    capsys.readouterr()
    print("data")
    for _ in range(50):
        printed.acquire(timeout=60)
    enough.set()
    captured = capsys.readouterr()
    assert captured.out == "data\n"  # what is left behind spoils neither stream
    assert captured.err.count("noise") <= 1
    for thread in threading.enumerate():
        if thread.name == f"kdkit-apart-{__name__}":
            thread.join()
    run_apart(lambda: print("later"), 5)
    assert capsys.readouterr().err == "later\n"  # although Python gives its number to the next thread


HANGS = {
    "sleeps": "import time\ntime.sleep(10**6)",
    "computes": "while True: pass",
    "prints": "while True: print('x' * 1000)",
    "reads a socket": "import socket\nus, them = socket.socketpair()\nus.recv(1)",
    "catches everything": "while True:\n  try: pass\n  except BaseException: pass",
}
SCRIPT = """
import sys
from kdkit.core.plugin_system.time_limit import Unfinished, run_apart
try:
    run_apart(lambda: exec({source!r}), 0.2)
except Unfinished:
    print("given up")
{ending}
"""
ENDINGS = {"": 0, "sys.exit(4)": 4, "raise ValueError('mine')": 1, "import os, signal; os.kill(os.getpid(), 2)": -2}


@pytest.mark.parametrize("what", HANGS)
def test_the_process_ends_as_if_nothing_hung(what: str, kdkit_cli: Cli) -> None:
    outcome = kdkit_cli.python("-c", SCRIPT.format(source=HANGS[what], ending="sys.exit(4)"))
    assert (outcome.code, outcome.stdout) == (4, "given up\n")
    assert "Fatal" not in outcome.stderr


@pytest.mark.parametrize("ending", ENDINGS)
def test_whichever_way_the_process_ends(ending: str, kdkit_cli: Cli) -> None:
    outcome = kdkit_cli.python("-c", SCRIPT.format(source=HANGS["computes"], ending=ending))
    assert (outcome.code, outcome.stdout) == (ENDINGS[ending], "given up\n")
