"""What happens under load without the loss of a host: a short cut, a drain, another server."""

import time

from tests.chaos.resuming import ResumingStreams
from tests.chaos.stage import Row
from tests.multihost.stage import CALM_SECONDS, Stage

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
