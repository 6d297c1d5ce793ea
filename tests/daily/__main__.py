"""A machine's day: what happens to it while a server starts and serves, and whether all is as promised.

python -m tests.daily [HAPPENING ...] [--short] [--publish FILE]
"""

import argparse
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import report
from tests.daily import accidents, signals
from tests.daily.report import HEADER, Row
from tests.heard_signals import let_children_hear_signals

HAPPENINGS: dict[str, tuple[Callable[[int], Row], int, int]] = {  # how often in full, and in the short form
    "signal-at-start": (lambda times: signals.at_the_start(times, random.Random(2026)), 20, 3),
    "signal-under-load": (lambda times: signals.under_load(times, random.Random(2027)), 6, 1),
    "ctrl-c-twice": (lambda times: signals.twice(times, random.Random(2028)), 2, 0),
    "raylet-killed": (accidents.ray_process("raylet"), 2, 1),
    "gcs-killed": (accidents.ray_process("gcs_server"), 2, 0),
    "standstill": (accidents.standstill, 2, 0),
    "full-disk": (accidents.full_disk, 1, 0),
    "full-shared-memory": (accidents.full_shared_memory, 1, 0),
    "cleaned-folder": (accidents.cleaned_folder, 2, 0),
}
TITLE = "What a machine's ordinary day does to a server"
NOTES = "Eight streams run where there is a load; *different* counts requests in which a token differs."


def main() -> int:
    """The exit code is 0 if all is as promised."""
    let_children_hear_signals()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("happenings", nargs="*", metavar="HAPPENING", help=", ".join(HAPPENINGS))
    parser.add_argument("--short", action="store_true", help="a few, once")
    parser.add_argument("--times", type=int, default=0, help="how often each, whatever is usual")
    parser.add_argument("--publish", type=Path, metavar="FILE", help="write the table there, too")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.happenings if name not in HAPPENINGS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(HAPPENINGS)}")
    rows = []
    for name in arguments.happenings or HAPPENINGS:
        happening, full, few = HAPPENINGS[name]
        if times := arguments.times or (few if arguments.short else full):
            began = time.monotonic()
            rows.append(happening(times))
            print(f"{name}: {rows[-1].cells()} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    command = " ".join(["python -m tests.daily", *sys.argv[1:]])
    text = report(command, TITLE, HEADER, [row.cells() for row in rows], NOTES)
    print(text, flush=True)
    if arguments.publish:
        arguments.publish.write_text(text, encoding="utf-8")
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
