"""Disturbances under load that lose no host: short cuts, bad links, a host more or less, another server."""

import time
from collections.abc import Callable

from tests.chaos.resuming import ResumingStreams
from tests.chaos.stage import Row
from tests.multihost.hosts import Host
from tests.multihost.stage import CALM_SECONDS, Stage

_SLOW_MEGABITS, _BAD_SECONDS = 4.0, 15.0
_MORE = 3  # experts that get a second replica on a host that comes
_BLIP_SECONDS = 3.0  # the settings of this harness give a host up after more


def blip(stage: Stage, times: int) -> Row:
    """Cut a worker host off for so short a time that Ray does not give it up; nothing may be replaced."""
    cluster, windows = stage.cluster, list[tuple[float, float]]()
    cluster.spread()
    tally = stage.streams.start()
    before, restarts = cluster.actors(), cluster.status().heads[0].restart_count
    for _ in range(times):
        host = cluster.other_worker()
        time.sleep(CALM_SECONDS)
        at = time.monotonic()
        host.cut()
        time.sleep(_BLIP_SECONDS)
        host.heal()
        cluster.wait_replicas(2)
        windows.append((at, time.monotonic() + 1.0))
    time.sleep(2 * CALM_SECONDS)  # a false alarm would be heard by now
    stage.streams.stop()
    replaced = sorted(before ^ cluster.actors())
    if replaced or cluster.status().heads[0].restart_count != restarts:
        tally.failed.append(f"replaced without need: {replaced}, or the head was begun again")
    name = f"a host is cut off for {_BLIP_SECONDS:g} s"
    return Row(name, times, stage.quiet, tally, windows, f"{len(replaced)} processes came or went")


def lossy(stage: Stage, times: int) -> Row:
    """Every fiftieth packet to and from a worker host is lost for a while; nothing may be replaced."""
    return _bad_link(stage, times, "2 % of a host's packets are lost", lambda h: h.lose_packets(20), Host.lose_nothing)


def slow_link(stage: Stage, times: int) -> Row:
    """The link of a worker host carries so little for a while that it decides how long a layer takes."""
    name = f"a host's link carries {_SLOW_MEGABITS:g} Mb/s"
    return _bad_link(stage, times, name, lambda host: host.slow_down(_SLOW_MEGABITS), Host.speed_up)


def _bad_link(stage: Stage, times: int, name: str, spoil: Callable[[Host], None], mend: Callable[[Host], None]) -> Row:
    cluster, windows = stage.cluster, list[tuple[float, float]]()
    cluster.spread()
    tally = stage.streams.start()
    before = cluster.actors()
    for _ in range(times):
        host = cluster.other_worker()
        assert cluster.replicas(host), f"no replica on {host.name}"
        time.sleep(CALM_SECONDS)
        at, done = time.monotonic(), tally.done
        spoil(host)
        time.sleep(_BAD_SECONDS)
        answered = tally.done - done
        mend(host)
        windows.append((at, time.monotonic() + 1.0))
        time.sleep(CALM_SECONDS)
    stage.streams.stop()
    if replaced := sorted(before ^ cluster.actors()):
        tally.failed.append(f"replaced without need: {replaced}")
    return Row(name, times, stage.quiet, tally, windows, f"{answered} answers in {_BAD_SECONDS:g} s of it")


def add_host(stage: Stage, times: int) -> Row:
    """A host comes, and gets the further replicas; then it is drained and goes."""
    cluster, windows, took = stage.cluster, list[tuple[float, float]](), list[float]()
    cluster.scale(1)
    tally = stage.streams.start()
    for _ in range(times):
        time.sleep(CALM_SECONDS)
        at = time.monotonic()
        host = cluster.add()
        cluster.wait_node(host)
        cluster.client.scale(dict.fromkeys(range(_MORE), 2))
        cluster.wait_on(host, _MORE)
        took.append(time.monotonic() - at)
        time.sleep(CALM_SECONDS)
        cluster.retire(host)
        windows.append((at, time.monotonic()))
    stage.streams.stop()
    notes = f"{_MORE} replicas on it {max(took):.0f} s after it was switched on"
    return Row("a host is added, scaled onto, drained", times, stage.quiet, tally, windows, notes)


def drain(stage: Stage, times: int) -> Row:
    """Drain a worker host, switch it off when nothing of ours is there, and let it come back."""
    cluster, windows = stage.cluster, list[tuple[float, float]]()
    cluster.spread()
    tally = stage.streams.start()
    for _ in range(times):
        host = cluster.other_worker()
        assert cluster.replicas(host), f"no replica on {host.name}"
        time.sleep(CALM_SECONDS)
        at = time.monotonic()
        cluster.client.drain(cluster.node_of(host), 120.0)
        cluster.wait_empty(host)
        cluster.wait_replicas(2)
        windows.append((at, time.monotonic()))
        host.kill()
        time.sleep(CALM_SECONDS)
        host.boot()
        cluster.join(host)
        cluster.wait_node(host)
        cluster.spread()
    stage.streams.stop()
    took = max(end - begin for begin, end in windows)
    return Row("drain a host", times, stage.quiet, tally, windows, f"empty after {took:.0f} s at most")


def kill_serve(stage: Stage, times: int) -> Row:
    """SIGKILL the server and start another, which must take all actors over as they are."""
    return _kill_serve(stage, times, stand_by=False)


def kill_serve_with_standby(stage: Stage, times: int) -> Row:
    """The same, while another stands by on the same ports."""
    return _kill_serve(stage, times, stand_by=True)


def _kill_serve(stage: Stage, times: int, stand_by: bool) -> Row:
    cluster, windows, took = stage.cluster, list[tuple[float, float]](), list[float]()
    cluster.spread()
    streams = ResumingStreams(stage.streams)
    tally = streams.start()
    time.sleep(CALM_SECONDS)
    before = cluster.actors()
    for _ in range(times):
        leads, follows = cluster.serves[-1], cluster.serve().wait_standby() if stand_by else None
        at = time.monotonic()
        leads.kill()
        cluster.serves.append((follows or cluster.serve()).wait_ready())
        took.append(time.monotonic() - at)
        cluster.wait_replicas(2)
        windows.append((at, time.monotonic() + 1.0))
        time.sleep(2 * CALM_SECONDS)
    streams.stop()
    if replaced := sorted(before ^ cluster.actors()):
        tally.failed.append(f"not taken over: {replaced}")
    notes = f"ready {max(took):.1f} s after the kill, {tally.refused} requests asked again"
    what = "another stands by" if stand_by else "another starts"
    return Row(f"kill -9 of serve, {what}", times, stage.quiet, tally, windows, notes)
