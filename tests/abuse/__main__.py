"""Abuse a server of one's own and print what 16 ordinary streams met meanwhile.

python -m tests.abuse [ABUSE ...] [--short] [--publish FILE]
"""

import argparse
import multiprocessing
import queue
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import report
from tests.abuse.abuses import ABUSES, stranger_main
from tests.abuse.load import Server, Spinner, Streams
from tests.abuse.target import Target

TITLE = "What 16 streams meet while a stranger abuses the server"
_ALL_TIMES = 6  # as long: everything at once
HEADER = (
    *("what", "streams", "failed", "p99 gap ms", "against calm", "against a busy core"),
    *("MB before", "most", "after", "log bytes", "what was done"),
)
NOTES = """One server (`runtime=in_process`, `ulimit -n 1024`, tokens), each abuse from a process of its own on the same
machine, `everything` from one process with a thread for each and six times as long. The streams are alice's.
Abuse that costs work before the queue and beyond comes from mallory, who has a token, too; the rest from strangers.
*Against calm*: the p99 of the gaps between messages, as a multiple of the same streams' with nothing else going on;
*against a busy core*: of the same beside a process that only spins on one. A stream opens its own connection. *MB* are
resident; *most* is looked at 20 times a second, *after* within 15 s of the end.
*Log bytes* is what the abuse added to the server's log."""


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one abuse."""

    cells: list[str]
    good: bool


def main() -> int:
    """The exit code is 0 if no ordinary stream failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("abuses", nargs="*", metavar="ABUSE", help=", ".join(ABUSES))
    parser.add_argument("--short", action="store_true", help="each for three seconds instead of ten")
    parser.add_argument("--publish", type=Path, metavar="FILE", help="write the table there, too")
    arguments = parser.parse_args()
    wanted = arguments.abuses or list(ABUSES)
    if unknown := [name for name in wanted if name not in ABUSES]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(ABUSES)}")
    seconds = 3.0 if arguments.short else 10.0
    server = Server(descriptors=1024)
    try:
        rows = _run(server, wanted, seconds)
        log = server.log()
    finally:
        server.close()
    notes = f"{NOTES} Tracebacks in the log: {log.count('Traceback')}."
    text = report(" ".join(["python -m tests.abuse", *sys.argv[1:]]), TITLE, HEADER, [row.cells for row in rows], notes)
    print(text, flush=True)
    if arguments.publish:
        arguments.publish.write_text(text, encoding="utf-8")
    return 0 if all(row.good for row in rows) else 1


def _run(server: Server, wanted: list[str], seconds: float) -> list[Row]:
    _streams(server, 1.0)  # warm
    calm = _streams(server, seconds)
    spinner = Spinner()
    try:
        busy = _streams(server, seconds)
    finally:
        spinner.close()
    rows = [_row("nothing", calm, calm, busy, [server.resident], 0, ""),
            _row("a busy core", busy, calm, busy, [server.resident], 0, "")]  # fmt: skip
    for name in wanted:
        rows.append(_abuse(server, name, seconds * (_ALL_TIMES if name == "everything" else 1), calm, busy))
        print(rows[-1].cells, file=sys.stderr, flush=True)
    return rows


def _streams(server: Server, seconds: float) -> Streams:
    streams = Streams(server.address, token=server.tokens["alice"]).start()
    time.sleep(seconds)
    return streams.stop()


def _abuse(server: Server, name: str, seconds: float, calm: Streams, busy: Streams) -> Row:
    written, resident = len(server.log()), [server.resident]
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            resident.append(server.resident)

    looking = threading.Thread(target=look, daemon=True)
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    target = Target(server.address, server.http, server.tokens["mallory"])
    stranger = context.Process(target=stranger_main, args=(name, target, seconds, answer), daemon=True)
    looking.start()
    stranger.start()
    answer.get(timeout=60)  # it has begun
    streams = Streams(server.address, token=server.tokens["alice"]).start()
    try:
        done = str(answer.get(timeout=seconds + 120))
    except queue.Empty:
        done = "did not end"
        stranger.kill()
    streams.stop()
    stranger.join(10)
    ended.set()
    looking.join()
    resident.append(_settled(server, resident[0]))
    return _row(name, streams, calm, busy, resident, len(server.log()) - written, done)


def _settled(server: Server, before: int) -> int:
    """What it holds once it has given back what it took, or has had 15 seconds for it."""
    end = time.monotonic() + 15.0
    while server.resident - before > 32 << 20 and time.monotonic() < end:
        time.sleep(0.2)
    return server.resident


def _row(
    name: str, streams: Streams, calm: Streams, busy: Streams, resident: list[int], written: int, done: str
) -> Row:
    p99 = streams.p99()
    times = [f"{1000 * p99:.0f}", f"{p99 / calm.p99():.2f} x", f"{p99 / busy.p99():.2f} x"]
    memory = [str(value >> 20) for value in (resident[0], max(resident), resident[-1])]
    cells = [name, str(streams.done), str(len(streams.failed)), *times, *memory, str(written), done]
    print(*streams.failed[:3], sep="\n", file=sys.stderr)
    return Row(cells, not streams.failed and streams.done > 0)


if __name__ == "__main__":
    sys.exit(main())
