"""A Ray of our own on this machine, recorded so that a later command can take it over or remove it. Imports no Ray.

Its processes have a process session of their own, outlive a killed `serve` and never see its Ctrl-C. They listen on
loopback only and do not know the machine's outward address, because that may change at any time.
"""

import contextlib
import dataclasses
import json
import logging
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from cluster.launch.local_ray import marks
from cluster.launch.local_ray.auth import choose_ray_auth
from cluster.launch.local_ray.folder import Hold, StateFolders, state_folders
from cluster.launch.local_ray.record import LocalRay, orphans, records
from cluster.launch.runtime import LaunchFailed, LaunchStopped
from cluster.settings.address import bind

log = logging.getLogger("eightwinds.local_ray")

_ESSENTIAL = ("raylet", "gcs_server")
_OBJECT_STORE_BYTES = 200_000_000
# Rows of up to 512 KiB travel inside the call instead of through the object store: eight calls of 256 KiB took 7 ms
# instead of 17 (docs/adr/0002-object-refs.md).
# Ray delays the failure of a call to a dead process until it knows the cause of death, at most this long, checked at
# each heartbeat. The defaults (1 s each) would dominate the recovery of a killed head.
# Event statistics, which nothing here reads, cost 5 % of a call.
SYSTEM_CONFIG = {
    "max_direct_call_object_size": 512 * 1024,
    "timeout_ms_task_wait_for_death_info": 100,
    "core_worker_internal_heartbeat_ms": 200,
    "event_stats": False,
    "task_events_report_interval_ms": 0,
}
# Ray takes 127.0.0.1 for a mistake and replaces it by the machine's outward address; its processes then listen on all
# interfaces. This variable prevents that: it says that there is no cluster, as on Windows or macOS. Ray's processes and
# those that join them read it when they import Ray.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def prepare(namespace: str, ray_address: str, cpus: int) -> LocalRay | None:
    """Take over a local Ray that a `serve` left behind, or begin to start one; None if `ray_address` is given. Prepares
    this process's environment for joining it, so Ray must not be imported before. Calls at one time get different ones.
    """
    if ray_address:
        choose_ray_auth()
        return None
    folders = state_folders()
    with folders.made_and_locked():
        taken = [mine for local in records(folders, namespace) if (mine := local.taken())]
        ours = next((mine for mine in taken if mine.address and mine.pids()), None) or start(folders, namespace, cpus)
        ours.write()
    for other in (local for local in taken if local is not ours):
        if other.address and other.pids():
            other.let_go()  # it is left to another `serve`
        else:
            other.remove()
    for lost in orphans(namespace):
        log.warning("ended %d processes of a local Ray whose record was gone", len(lost.pids()))
        lost.remove()
    os.environ.update(_environment(ours.token))
    return ours


def down(namespace: str) -> list[str]:
    """Remove every local Ray whose `serve` is gone: a line for each. ValueError if others can write to the records."""
    running = "left alone the cluster of the running serve, process {}: stop that itself"
    lines = [_removed(mine) if mine else running.format(found.owner_pid) for found, mine in _taken(namespace)]
    return lines + [f"{_removed(lost)}, whose record was gone" for lost in orphans(namespace)]


def _removed(local: LocalRay) -> str:
    count = len(local.pids())
    local.remove()
    return f"removed a local Ray of {count} processes"


def left_behind(namespace: str) -> list[str]:
    """Describe what earlier serves have left behind. ValueError as `down`."""
    left = [mine for _, mine in _taken(namespace) if mine is not None]
    for mine in left:
        mine.let_go()
    lines = [f"{len(left)} local Ray of an earlier serve, recorded in {Path(left[0].record).parent}"] if left else []
    if lost := orphans(namespace):
        lines.append(f"{sum(len(o.pids()) for o in lost)} processes of a local Ray whose record is gone")
    return lines


def _taken(namespace: str) -> list[tuple[LocalRay, LocalRay | None]]:
    """Every recorded local Ray, and the same one taken if no process owns it."""
    folders = state_folders()
    try:
        with folders.locked():
            return [(local, local.taken()) for local in records(folders, namespace)]
    except FileNotFoundError:
        return []


def start(folders: StateFolders, namespace: str, cpus: int) -> LocalRay:
    """Begin to start a Ray with `cpus` logical CPUs; `wait` for it to be up."""
    name = folders.new_name()
    folder, record = folders.files / name, folders.records / name
    hold = Hold.of(folder)
    assert hold is not None, "nobody else knows of it"
    local = LocalRay(str(folder), str(record), namespace, secrets.token_hex(32), os.getpid(), hold=hold)
    local.write()  # before its first process: processes without a record count as orphans
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--port=0"]
    command += ["--node-ip-address=127.0.0.1", f"--temp-dir={folder}", f"--num-cpus={cpus}"]
    command += [f"--object-store-memory={_OBJECT_STORE_BYTES}"]
    command += ["--include-dashboard=false", "--include-log-monitor=false", "--no-monitor"]
    command += [f"--ray-client-server-port={_free_port()}"]  # it cannot be left out, and its default may be taken
    command += ["--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"]
    command += [f"--system-config={json.dumps(SYSTEM_CONFIG)}"]
    environment = _environment(local.token) | marks.mark(local.mark)
    with (folder / "start.log").open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=environment
        )
    threading.Thread(target=process.wait, name="reap-ray-start", daemon=True).start()
    return local


def essentials(local: LocalRay) -> dict[str, psutil.Process]:
    """Ray's own processes, which nobody starts anew, by name."""
    found = {}
    for pid in local.pids():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.name() in _ESSENTIAL:
                found[process.name()] = process
    return found


def broken(essentials: Mapping[str, psutil.Process]) -> str:
    """Which of these have ended, or ""."""
    living = set()
    for name, process in essentials.items():
        with contextlib.suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                living.add(name)
    ended = " and ".join(name for name in essentials if name not in living)
    return f"Ray's own {ended} of this machine has ended" if ended else ""


def _free_port() -> int:
    with bind("127.0.0.1:0") as probe:
        return int(probe.getsockname()[1])


def wait(local: LocalRay, stop: threading.Event, timeout: float) -> LocalRay:
    """Wait until it is up; the result has its address. Raises LaunchFailed or LaunchStopped."""
    end, look = time.monotonic() + timeout, 0.0
    address_file = Path(local.folder) / "ray_current_cluster"
    while not stop.wait(0.02):
        if address_file.exists() and (address := address_file.read_text(encoding="utf-8").strip()):
            up = dataclasses.replace(local, address=address)
            up.write()
            return up
        now = time.monotonic()
        if now > end or (now > look and not local.pids()):
            output = (Path(local.folder) / "start.log").read_text(encoding="utf-8", errors="replace")
            raise LaunchFailed(f"Ray did not start; its output was:\n{output.strip()[-2000:]}")
        if now > look:
            look = now + 0.25  # because a look at all processes costs milliseconds
    raise LaunchStopped


def _environment(token: str) -> dict[str, str]:
    """This process's environment and what Ray needs: a token, so that no other user of this machine can use it."""
    root = str(Path(__file__).resolve().parents[3])
    environment = dict(os.environ) | LOOPBACK
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
    environment["RAY_USAGE_STATS_ENABLED"] = "0"
    environment.setdefault("RAY_worker_niceness", "0")  # Ray would give way to everything else on the machine
    if environment.setdefault("RAY_AUTH_MODE", "token") == "token":
        environment["RAY_AUTH_TOKEN"] = token
    return environment
