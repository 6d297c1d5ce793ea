"""Faults of ordinary life on a cluster: a flood from another host, a host with another address, a full disk."""

import contextlib
import time

from tests.chaos.stage import Row
from tests.multihost.hosts import PYTHON, Host
from tests.multihost.stage import CALM_SECONDS, Stage

_FLOOD_SECONDS, _FULL_SECONDS = 20.0, 20.0
_DISK = "384m"  # of the host whose disk is filled


def flood(stage: Stage, times: int) -> Row:
    """Strangers on a host that is no member send what is huge, slow and malformed to the server's ports."""
    cluster, windows, said = stage.cluster, list[tuple[float, float]](), ""
    cluster.spread()
    tally = stage.streams.start()
    before = cluster.actors()
    with cluster.stranger() as host:
        for _ in range(times):
            time.sleep(CALM_SECONDS)
            at = time.monotonic()
            command = [PYTHON, "-m", "tests.multihost.flood", stage.streams.address, f"{_FLOOD_SECONDS:g}"]
            said = host.run(*command, timeout=10 * _FLOOD_SECONDS)
            windows.append((at, time.monotonic()))
        time.sleep(CALM_SECONDS)
    stage.streams.stop()
    if replaced := sorted(before ^ cluster.actors()):
        tally.failed.append(f"replaced without need: {replaced}")
    return Row("strangers on another host flood", times, stage.quiet, tally, windows, "; ".join(said.splitlines()))


def readdress(stage: Stage, times: int) -> Row:
    """A worker host gets another address: to the others it is lost, and comes back as another host."""
    cluster, windows = stage.cluster, list[tuple[float, float]]()
    cluster.spread()
    tally = stage.streams.start()
    for _ in range(times):
        host = cluster.other_worker()
        time.sleep(CALM_SECONDS)
        at, before = time.monotonic(), host.address
        host.readdress()
        cluster.wait_lost_address(before)
        cluster.wait_replicas(2)
        took = time.monotonic() - at
        _leave(host)
        cluster.join(host)
        cluster.wait_node(host)
        windows.append((at, time.monotonic()))
        time.sleep(CALM_SECONDS)
        cluster.spread()
    stage.streams.stop()
    return Row("a host gets another address", times, stage.quiet, tally, windows, f"all back after {took:.1f} s")


def _leave(host: Host) -> None:
    """End Ray there, as its operator does before it is started with the new address."""
    for name in ("raylet", "ray::IDLE", "python"):
        with contextlib.suppress(OSError):
            host.kill_processes(name)


def full_disk(stage: Stage, times: int) -> Row:
    """The disk of a worker host fills up while its replicas serve, and is emptied again."""
    cluster, windows = stage.cluster, list[tuple[float, float]]()
    cluster.scale(1)
    tally = stage.streams.start()
    host = cluster.add(disk=_DISK)
    cluster.wait_node(host)
    cluster.scale(2)
    before = cluster.actors()
    for _ in range(times):
        time.sleep(CALM_SECONDS)
        at = time.monotonic()
        host.run("sh", "-c", "cat /dev/zero >/tmp/full 2>/dev/null; cat /dev/zero >/root/full 2>/dev/null; true")
        left = host.run("df", "--output=avail", "/tmp").split()[-1]
        time.sleep(_FULL_SECONDS)
        windows.append((at, time.monotonic()))
        if replaced := sorted(before ^ cluster.actors()):
            tally.failed.append(f"replaced without need: {replaced}")
        host.run("rm", "/tmp/full", "/root/full")
        time.sleep(CALM_SECONDS)
    cluster.retire(host)
    stage.streams.stop()
    held = len([name for name, _ in before if name == host.name])
    notes = f"{left} KiB were free there, beside {held} replicas, for {_FULL_SECONDS:g} s"
    return Row("a worker's disk is full", times, stage.quiet, tally, windows, notes)
