"""Run the scenarios on hosts of their own and print what came of them. Needs root; nothing outside is touched.

python -m tests.multihost [SCENARIO ...] [--short] [--publish FILE] [--logs FOLDER]
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path

from benchmarks.report import report
from tests.chaos.stage import HEADER, Row
from tests.chaos.streams import Streams, some_requests
from tests.multihost import autoscaling, jail, pulling, ray_tls, ray_up
from tests.multihost.cluster import TUNED, PlainCluster, keep_logs
from tests.multihost.hosts import Hosts
from tests.multihost.scenarios import SCENARIOS
from tests.multihost.stage import Stage

AUTOSCALE = "autoscale"
PULL = "pull"
RAY_TLS = "ray-tls"
RAY_UP = "ray-up"
APART = {PULL: pulling.pull, RAY_TLS: ray_tls.ray_tls}  # with clusters of their own
NAMES = (*SCENARIOS, AUTOSCALE, *APART, RAY_UP)
HEAD_ON_A_WORKER = "head.resources={worker: 0.1}"
TITLE = "Sixteen streams while hosts are lost"
NOTES = """Three hosts, each in namespaces of its own on one machine: the first has Ray's head node and `serve`, one of
the others the head actor. Every token is compared with that of an undisturbed run: *different* counts requests in which
one differs. *p99 gap* is between messages of a stream while nothing happens, *p99 around* and *longest gap* those that
overlap what happens, until all is as before. Settings by which Ray notices lost hosts: """


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.multihost", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(NAMES))
    parser.add_argument("--short", action="store_true", help="the most telling ones, once each")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--times", type=int, default=0, help="how often each, whatever is usual")
    parser.add_argument("--detection", choices=("tuned", "default"), default="tuned", help="how Ray notices lost hosts")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", dest="settings")
    parser.add_argument("--publish", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="copy the logs of server and Ray there")
    parser.add_argument("--skip-unable", action="store_true", help="exit code 0 where hosts cannot be made")
    arguments = parser.parse_args()
    arguments.scenarios = arguments.scenarios or list(NAMES)
    if unknown := [name for name in arguments.scenarios if name not in NAMES]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return arguments


def main() -> int:
    """The exit code is 0 if no request failed and no token differed, 2 if this machine cannot have hosts."""
    arguments = _arguments()
    if not jail.inside():
        needed = RAY_UP in arguments.scenarios and not arguments.skip_unable
        if lack := jail.lacks() or (ray_up.lacks() if needed else ""):
            print(f"{'skipped' if arguments.skip_unable else 'multihost'}: {lack}", file=sys.stderr)
            return 0 if arguments.skip_unable else 2
        return jail.run_inside("tests.multihost", sys.argv[1:])
    jail.furnish()
    rows = _run(arguments)
    command = " ".join(["python -m tests.multihost", *sys.argv[1:]])
    text = report(command, TITLE, HEADER, [row.cells() for row in rows], NOTES + arguments.detection)
    print(text, flush=True)
    if arguments.publish:
        arguments.publish.write_text(text, encoding="utf-8")
    print("\n".join([text for row in rows for text in row.tally.failed][:20]), file=sys.stderr)
    return 0 if rows and all(row.good for row in rows) else 1


def _run(arguments: argparse.Namespace) -> list[Row]:
    wanted = {}
    for name in arguments.scenarios:
        if name in SCENARIOS:
            _, full, few = SCENARIOS[name]
            if times := arguments.times or (few if arguments.short else full):  # else too long for the short form
                wanted[name] = times
    rows = _on_three_hosts(arguments, wanted) if wanted else []
    if AUTOSCALE in arguments.scenarios and not arguments.short:
        rows.append(_with_autoscaler(arguments))
    for name in [name for name in APART if name in arguments.scenarios and not arguments.short]:
        begin = time.monotonic()
        rows.append(APART[name]())
        _say(f"{name}: {rows[-1].cells()}", begin)
    if RAY_UP in arguments.scenarios and (lack := ray_up.lacks()):
        print(f"skipped {RAY_UP}: {lack}", file=sys.stderr)
    elif RAY_UP in arguments.scenarios:
        begin = time.monotonic()
        rows += (
            raised := ray_up.ray_up(some_requests(arguments.seed, 12), arguments.times or int(not arguments.short))
        )
        _say(f"{RAY_UP}: {raised[0].cells()}", begin)
    return rows


def _on_three_hosts(arguments: argparse.Namespace, wanted: dict[str, int]) -> list[Row]:
    rows, begin = list[Row](), time.monotonic()
    detection = TUNED if arguments.detection == "tuned" else {}
    with Hosts(3) as hosts, contextlib.ExitStack() as stack:
        if arguments.logs:
            stack.callback(keep_logs, hosts, arguments.logs)
        cluster = PlainCluster(hosts, [HEAD_ON_A_WORKER, *arguments.settings], detection)
        stack.callback(cluster.close)
        _say("three hosts serve", begin)
        streams = _streams(cluster.serves[0].address, arguments)
        quiet = streams.start()
        time.sleep(3.0 if arguments.short else 15.0)
        stage = Stage(cluster, streams, quiet)
        streams.stop()
        _say("answers without disturbance are known", begin)
        for name, times in wanted.items():
            begin = time.monotonic()
            rows.append(SCENARIOS[name][0](stage, times))
            _say(f"{name}: {rows[-1].cells()}", begin)
        if not all(row.good for row in rows):
            print("\n".join(serve.log.read_text() for serve in cluster.serves), file=sys.stderr)
    return rows


def _with_autoscaler(arguments: argparse.Namespace) -> Row:
    begin = time.monotonic()
    with Hosts(1) as hosts, contextlib.ExitStack() as stack:
        if arguments.logs:
            stack.callback(keep_logs, hosts, arguments.logs / AUTOSCALE)
        serve = autoscaling.start(hosts.all[0], arguments.settings)
        row = autoscaling.autoscale(serve, _streams(serve.address, arguments))
    _say(f"{AUTOSCALE}: {row.cells()}", begin)
    return row


def _streams(address: str, arguments: argparse.Namespace) -> Streams:
    streams = Streams(address, some_requests(arguments.seed, 12 if arguments.short else 32))
    streams.learn()
    return streams


def _say(what: str, since: float) -> None:
    print(f"{what} ({time.monotonic() - since:.0f} s)", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
