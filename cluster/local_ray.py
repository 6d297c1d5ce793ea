"""A Ray of our own on this machine: `ray start` in a process session of its own, written down so that a later
command finds it or removes it. Imports no Ray.

The processes form one session (setsid), so they outlive a killed `serve`, never see its Ctrl-C, and can be ended
by their session id without touching any other Ray on the machine.
"""

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.address import bind
from cluster.deployment import LaunchFailed, LaunchStopped

_RECORD = "cluster.json"
_ADDRESS_FILE = "ray_current_cluster"
_OBJECT_STORE_BYTES = 200_000_000
# Rows of up to 512 KiB travel inside the call instead of through the object store: eight calls of 256 KiB took 7 ms
# instead of 17 (docs/adr/0002-object-refs.md).
# A call to a process that has ended fails when Ray knows why it has, or after this wait, which it looks after with each
# heartbeat. We need not know why, and a second of each would be most of what a killed head costs.
# Statistics that nobody here reads cost 5 % of a call.
SYSTEM_CONFIG = {
    "max_direct_call_object_size": 512 * 1024,
    "timeout_ms_task_wait_for_death_info": 100,
    "core_worker_internal_heartbeat_ms": 200,
    "event_stats": False,
    "task_events_report_interval_ms": 0,
}


@dataclass(frozen=True, slots=True)
class LocalRay:
    """A local Ray: its process session, folder, GCS address and token; `owner` is the `serve` that uses it, by pid
    and start time. `started` is seconds since the epoch.
    """

    session: int
    started: float
    folder: str
    namespace: str
    token: str
    owner_pid: int
    owner_started: float
    address: str = ""

    def pids(self) -> list[int]:
        """Living processes of the session."""
        found = []
        for process in psutil.process_iter(["create_time", "status"]):
            try:
                if os.getsid(process.pid) != self.session or process.info["status"] == psutil.STATUS_ZOMBIE:
                    continue
            except OSError:
                continue
            if process.info["create_time"] >= self.started - 5.0:  # else the id was used by an earlier session
                found.append(process.pid)
        return found

    def owned(self) -> bool:
        """Whether the `serve` that used it last is alive."""
        try:
            owner = psutil.Process(self.owner_pid)
            living = owner.status() != psutil.STATUS_ZOMBIE  # killed, and nobody has waited for it yet
            return living and abs(owner.create_time() - self.owner_started) < 1.0
        except psutil.NoSuchProcess:
            return False

    def taken(self) -> "LocalRay":
        """The same, owned by this process; the record says so from now on."""
        me = psutil.Process()
        mine = dataclasses.replace(self, owner_pid=me.pid, owner_started=me.create_time())
        mine.write()
        return mine

    def write(self) -> None:
        """Keep the record, for its owner's eyes only: it holds the token."""
        path = Path(self.folder) / _RECORD
        path.touch(mode=0o600)
        path.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")

    def remove(self, patience: float = 3.0) -> None:
        """End its processes and delete its folder."""
        _end(self, signal.SIGTERM)
        end = time.monotonic() + patience
        while time.monotonic() < end and self.pids():
            time.sleep(0.05)
        _end(self, signal.SIGKILL)
        while self.pids() and time.monotonic() < end + patience:
            time.sleep(0.02)
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another cluster's record is in it
            state_folder().rmdir()


def _end(local: LocalRay, signum: signal.Signals) -> None:
    for pid in local.pids():
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            continue


def state_folder() -> Path:
    """Where records and Ray's own files lie. Short, because Ray's sockets allow paths of 107 bytes only."""
    base = os.environ.get("EIGHTWINDS_STATE", "") or tempfile.gettempdir()
    return Path(base if len(base) <= 24 else "/tmp") / f"eightwinds-{os.getuid()}"


def records(namespace: str) -> Iterator[LocalRay]:
    """Every local Ray of this namespace that was written down and not removed."""
    for path in sorted(state_folder().glob(f"*/{_RECORD}")):
        try:
            local = LocalRay(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, OSError):
            continue  # being written, or of another version
        if local.namespace == namespace:
            yield local


def prepare(namespace: str, ray_address: str, cpus: int) -> LocalRay | None:
    """Take over a local Ray that a `serve` left behind, or begin to start one; None if `ray_address` is given.

    This process's environment is made ready to connect to it.
    """
    if ray_address:
        return None
    for local in records(namespace):
        if local.owned():
            continue
        if local.address and local.pids():
            local = local.taken()
            break
        local.remove()
    else:
        local = start(namespace, cpus)
    os.environ.update(_environment(local.token))
    return local


def down(namespace: str) -> list[str]:
    """Remove every local Ray whose `serve` is gone; answers a line for each that was found."""
    lines = []
    for local in records(namespace):
        if local.owned():
            lines.append(f"left alone the cluster of the running serve, process {local.owner_pid}: stop that itself")
            continue
        count = len(local.pids())
        local.remove()
        lines.append(f"removed a local Ray of {count} processes")
    return lines


def start(namespace: str, cpus: int) -> LocalRay:
    """Begin to start a Ray with `cpus` logical CPUs; `wait` for it to be up."""
    folder = state_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise LaunchFailed(f"{folder} belongs to another user: set EIGHTWINDS_STATE to a folder of your own")
    folder = folder / secrets.token_hex(4)
    folder.mkdir(mode=0o700)
    token = secrets.token_hex(32)
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--port=0",
        "--node-ip-address=127.0.0.1",
    ]
    command += [f"--temp-dir={folder}", f"--num-cpus={cpus}", f"--object-store-memory={_OBJECT_STORE_BYTES}"]
    command += ["--include-dashboard=false", "--include-log-monitor=false", "--no-monitor"]
    command += [f"--ray-client-server-port={_free_port()}"]  # it cannot be left out, and its default may be taken
    command += ["--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"]
    command += [f"--system-config={json.dumps(SYSTEM_CONFIG)}"]
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=_environment(token)
        )
    me = psutil.Process()
    local = LocalRay(process.pid, time.time(), str(folder), namespace, token, me.pid, me.create_time())
    local.write()
    threading.Thread(target=process.wait, name="reap-ray-start", daemon=True).start()
    return local


def _free_port() -> int:
    with bind("127.0.0.1:0") as probe:
        port: int = probe.getsockname()[1]
        return port


def wait(local: LocalRay, stop: threading.Event, timeout: float) -> LocalRay:
    """Wait until it is up; the result knows its address. Raises LaunchFailed or LaunchStopped."""
    end = time.monotonic() + timeout
    address_file = Path(local.folder) / _ADDRESS_FILE
    while True:
        if stop.is_set():
            raise LaunchStopped
        if address_file.exists() and (address := address_file.read_text(encoding="utf-8").strip()):
            up = dataclasses.replace(local, address=address)
            up.write()
            return up
        if not local.pids() or time.monotonic() > end:
            log = (Path(local.folder) / "start.log").read_text(encoding="utf-8", errors="replace")
            raise LaunchFailed(f"Ray did not start; its output was:\n{log.strip()[-2000:]}")
        time.sleep(0.02)


def _environment(token: str) -> dict[str, str]:
    """Ours, plus what Ray needs: a token, so that nobody else on this machine can use the cluster."""
    root = str(Path(__file__).resolve().parent.parent)
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
    environment["RAY_USAGE_STATS_ENABLED"] = "0"
    environment.setdefault("RAY_worker_niceness", "0")  # Ray would give way to everything else on the machine
    if environment.setdefault("RAY_AUTH_MODE", "token") == "token":
        environment["RAY_AUTH_TOKEN"] = token
    return environment
