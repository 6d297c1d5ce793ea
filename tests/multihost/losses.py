"""Hosts that are lost under load: killed, without their raylet, or cut off."""

import time
from collections.abc import Callable

from tests.chaos.stage import Row
from tests.multihost.cluster import Cluster
from tests.multihost.hosts import Host
from tests.multihost.stage import CALM_SECONDS, Stage

_BOOTS_AFTER, _WATCHED = 25.0, 90.0  # seconds after the kill


def kill_host(stage: Stage, times: int) -> Row:
    """SIGKILL a worker host with one of two replicas of several experts; it boots again later."""
    return _lose(stage, times, "kill -9 of a host", Host.kill)


def kill_raylet(stage: Stage, times: int) -> Row:
    """SIGKILL only the raylet of a worker host; Ray's workers there end by themselves."""
    return _lose(stage, times, "kill -9 of a host's raylet", _kill_raylet)


def cut(stage: Stage, times: int) -> Row:
    """Cut a worker host off until Ray has given it up, and let it speak again when its replicas run elsewhere."""
    return _lose(stage, times, "a host is cut off for good", Host.cut)


def kill_sole_host(stage: Stage, times: int) -> Row:
    """SIGKILL a worker host with the only replica of some experts: streams wait for their successors."""
    return _lose(stage, times, "kill -9 of a host with sole copies", Host.kill, copies=1)


def kill_head_host(stage: Stage, times: int) -> Row:
    """SIGKILL the host of the head actor, which goes on elsewhere."""
    return _lose(stage, times, "kill -9 of the head's host", Host.kill, of_head=True)


def cut_head_host(stage: Stage, times: int) -> Row:
    """Cut the host of the head actor off: for a while there are two heads, and one of them is not heard."""
    return _lose(stage, times, "the head's host is cut off for good", Host.cut, of_head=True)


def reboot_sole_host(stage: Stage, times: int) -> Row:
    """SIGKILL a worker host with the only replica of some experts, and boot it 25 s later, whatever has come back."""
    cluster, windows = stage.cluster, list[tuple[float, float]]()
    cluster.spread()
    cluster.scale(1)
    tally = stage.streams.start()
    for _ in range(times):
        host = cluster.other_worker()
        assert cluster.replicas(host), f"no replica on {host.name}"
        time.sleep(CALM_SECONDS)
        at = time.monotonic()
        host.kill()
        time.sleep(_BOOTS_AFTER)
        host.boot()
        cluster.join(host)
        time.sleep(max(0.0, at + _WATCHED - time.monotonic()))
        windows.append((at, time.monotonic()))
        cluster.spread()
        cluster.scale(1)
    stage.streams.stop()
    return Row("kill -9 of a host with sole copies, booted 25 s later", times, stage.quiet, tally, windows, "")


def _kill_raylet(host: Host) -> None:
    killed = host.kill_processes("raylet")
    assert killed == 1, f"{host.name} had {killed} raylets"


def _lose(
    stage: Stage, times: int, what: str, lose: Callable[[Host], None], copies: int = 2, of_head: bool = False
) -> Row:
    cluster, windows, given_up = stage.cluster, list[tuple[float, float]](), list[float]()
    cluster.spread()
    cluster.scale(copies)
    tally = stage.streams.start()
    for _ in range(times):
        host = cluster.head_host() if of_head else cluster.other_worker()
        assert cluster.replicas(host), f"no replica on {host.name}"
        restarts = cluster.status().heads[0].restart_count
        time.sleep(CALM_SECONDS)
        at = time.monotonic()
        lose(host)
        given_up.append(cluster.wait_lost(host))
        cluster.wait_replicas(copies, gone=host)
        if of_head:
            cluster.wait_head(restarts + 1)
        windows.append((at, time.monotonic()))
        time.sleep(CALM_SECONDS)
        _bring_back(cluster, host)
        cluster.spread()
        cluster.scale(copies)
    stage.streams.stop()
    back = max(end - begin for begin, end in windows)
    notes = f"given up after {max(given_up):.1f} s, all back after {back:.1f} s"
    return Row(what, times, stage.quiet, tally, windows, notes)


def _bring_back(cluster: Cluster, host: Host) -> None:
    """A host that was cut off may speak again for a while, then whatever host it is boots and takes part again."""
    if host.up:
        host.heal()
        time.sleep(CALM_SECONDS)
        host.kill()
    host.boot()
    cluster.join(host)
    cluster.wait_node(host)
