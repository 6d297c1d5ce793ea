"""Run the scenarios against a server of their own and print what came of them.

python -m tests.chaos [SCENARIO ...] [--short] [--seed N] [--set a.b=c ...]
"""

import argparse
import random
import sys
import time
from pathlib import Path

from benchmarks.report import report
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.stage import HEADER, Row, Stage
from tests.chaos.streams import Streams, some_requests
from tests.chaos.victims import Victims
from tests.integration.server import Server

TITLE = "Sixteen streams while processes are killed, frozen and added"
NOTES = """Every token is compared with that of an undisturbed run: *different* counts requests in which one differs.
Greedy, seeded, n = 2 and structured requests in turn. *p99 gap* is between messages of a stream while nothing
happens, *p99 around* and *longest gap* those that overlap what happens: a second from a kill of one of two replicas on,
or until all is as before.

Tracebacks in the server's log: """


def main() -> int:
    """The exit code is 0 if no request failed and no token differed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--short", action="store_true", help="each a few times only")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--times", type=int, default=0, help="how often each, whatever is usual")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", dest="settings")
    parser.add_argument("--publish", type=Path, metavar="FILE", help="write the table there, too")
    arguments = parser.parse_args()
    wanted = arguments.scenarios or list(SCENARIOS)
    if unknown := [name for name in wanted if name not in SCENARIOS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    server = Server(*(word for setting in arguments.settings for word in ("--set", setting)))
    try:
        rows = _run(server.wait_ready(), wanted, arguments)
        log = server.stderr()
    finally:
        server.close()
    command = " ".join(["python -m tests.chaos", *sys.argv[1:]])
    text = report(command, TITLE, HEADER, [row.cells() for row in rows], NOTES + str(log.count("Traceback")))
    print(text, flush=True)
    if arguments.publish:
        arguments.publish.write_text(text, encoding="utf-8")
    failures = [text for row in rows for text in row.tally.failed]
    print("\n".join(failures[:20]), file=sys.stderr)
    return 0 if all(row.good for row in rows) else 1


def _run(server: Server, wanted: list[str], arguments: argparse.Namespace) -> list[Row]:
    streams = Streams(server.address, some_requests(arguments.seed, 12 if arguments.short else 32))
    streams.learn()
    quiet = streams.start()
    time.sleep(3.0 if arguments.short else 20.0)
    streams.stop()
    exact = "model.dtype=bfloat16" not in arguments.settings
    stage, rows = Stage(Victims(server), streams, random.Random(arguments.seed), exact), list[Row]()
    for name in wanted:
        scenario, full, few = SCENARIOS[name]
        begin, times = time.monotonic(), arguments.times or (few if arguments.short else full)
        if not times:
            continue  # too long for the short form
        rows.append(scenario(stage, times, quiet))
        print(f"{name}: {rows[-1].cells()} in {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())
