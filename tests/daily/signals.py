"""SIGTERM, SIGINT and SIGHUP at random moments of the start, and while streams run."""

import contextlib
import random
import signal
import subprocess
import time

from cluster.client.failures import CallFailed
from cluster.client.messages import text_request
from cluster.settings.request_options import Options
from tests.chaos.streams import Streams, some_requests
from tests.daily.report import Row
from tests.integration.server import Server

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LONGEST_START = 13.0  # seconds; the signals fall anywhere in them
_GRACE = 5.0
_BOUND = _GRACE + 10
NEVER = 999  # in the place of an exit code


def at_the_start(times: int, rng: random.Random) -> Row:
    """A signal at a random moment, the first ones very early: exit code 0 and nothing left behind."""
    left, bad, longest = list[str](), list[str](), 0.0
    for turn in range(times):
        moment = _LONGEST_START * rng.random() ** 1.5
        server, signum = Server("--set", f"gateway.grace_s={_GRACE}"), _SIGNALS[turn % 3]
        try:
            time.sleep(moment)
            took, code = _end(server, signum)
            longest = max(longest, took)
            if code != 0 and not (moment < 1.0 and code == -signum):  # Python itself was starting
                bad.append(f"{signum.name} after {moment:.1f} s: exit code {code}")
            left += [f"{signum.name} after {moment:.1f} s left {what}" for what in server.leftovers()]
        finally:
            server.close()
    return Row("a signal during the start", times, ended=_told(longest), left=tuple(left), bad=tuple(bad))


def under_load(times: int, rng: random.Random) -> Row:
    """Streams end well within the grace, or with UNAVAILABLE after it; nothing is left behind."""
    left, bad, longest, done, failed = list[str](), list[str](), 0.0, 0, 0
    for turn in range(times):
        server, signum = Server("--set", f"gateway.grace_s={_GRACE}"), _SIGNALS[turn % 3]
        try:
            server.wait_ready()
            streams = Streams(server.address, some_requests(turn, 8, 48), at_once=8)
            streams.learn()
            tally = streams.start()
            time.sleep(rng.uniform(0.0, 2.0))
            streams.finish()
            took, code = _end(server, signum)
            streams.stop()
            longest, done, failed = max(longest, took), done + tally.done, failed + len(tally.failed)
            if code != 0:
                bad.append(f"{signum.name}: exit code {code}")
            bad += sorted({text for text in tally.failed if not text.startswith("UNAVAILABLE")})
            bad += ["tokens differ"] * bool(tally.different)
            left += server.leftovers()
        finally:
            server.close()
    return Row(
        "a signal under eight streams",
        times,
        done,
        failed,
        ended=_told(longest),
        left=tuple(left),
        bad=tuple(bad),
        notes=f"failed ones were longer than the grace of {_GRACE:g} s, or came after the signal: UNAVAILABLE",
    )


def twice(times: int, rng: random.Random) -> Row:
    """A second Ctrl-C does not wait for requests."""
    left, bad, longest = list[str](), list[str](), 0.0
    for _ in range(times):
        server = Server("--set", "gateway.grace_s=300")
        try:
            server.wait_ready()
            with server.client() as client, contextlib.suppress(CallFailed):
                request = text_request("Once upon a time", Options(max_tokens=3000, temperature=0.0))
                request.stopping.ignore_eos = True
                next(iter(client.stream(request)))
                server.process.send_signal(signal.SIGINT)
                server.wait_stderr("draining")
                took, code = _end(server, signal.SIGINT)
                longest = max(longest, took)
                bad += [f"exit code {code}"] * (code != 0)
            left += server.leftovers()
        finally:
            server.close()
    return Row("Ctrl-C twice, with a grace of 300 s", times, ended=_told(longest), left=tuple(left), bad=tuple(bad))


def _end(server: Server, signum: signal.Signals) -> tuple[float, int]:
    began = time.monotonic()
    server.process.send_signal(signum)
    try:
        code = server.process.wait(_BOUND)
    except subprocess.TimeoutExpired:
        code = NEVER
    return time.monotonic() - began, code


def _told(longest: float) -> str:
    return f"after {longest:.1f} s at most"
