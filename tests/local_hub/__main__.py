"""``python -m tests.local_hub DIR``: a Hub to try things by hand, until Ctrl-C."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

from tests.local_hub.server import ALICE, local_hub


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.local_hub", description=__doc__)
    parser.add_argument("folder", type=Path, help="where contents are kept")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--xet", action="store_true", help="offer Xet storage besides LFS")
    given = parser.parse_args()
    try:
        with local_hub(given.folder.resolve(), port=given.port, xet=given.xet) as hub:
            for name, value in hub.environment(ALICE).items():
                print(f"export {name}={value}", flush=True)
            if not given.xet:
                print("export HF_HUB_DISABLE_XET=1", flush=True)  # 'hf upload' does not ask whether there is any
            print("# you are alice, who may write to 'alice' and to the organization 'lab'; Ctrl-C ends it", flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:  # whenever it comes: a reader of the last line may be quicker than the wait
        print()


if __name__ == "__main__":
    main()
