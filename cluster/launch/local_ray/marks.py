"""Processes of this user that carry a mark in their environment, which children inherit and no later process has."""

import contextlib
import os
import signal
import time
from collections import defaultdict
from pathlib import Path

import psutil

from cluster.launch.local_ray.folder import closing

MARK = "EIGHTWINDS_CLUSTER"
_PREFIX = f"{MARK}=".encode()


def mark(value: str) -> dict[str, str]:
    """Variables for the first process. Ray renames its processes and would overwrite the environment to make room for
    the name; SPT_NOENV prevents that.
    """
    return {MARK: value, "SPT_NOENV": "1"}


def marked() -> dict[str, list[int]]:
    """Living processes by mark."""
    found = defaultdict(list)
    for pid in psutil.pids():
        if value := _mark_of(pid):
            found[value].append(pid)
    return found


def end(value: str, patience: float = 3.0) -> None:
    """End all processes with this mark: SIGTERM, then SIGKILL for those that live after `patience` seconds."""
    _signal(value, signal.SIGTERM)
    limit = time.monotonic() + patience
    while (left := marked().get(value)) and time.monotonic() < limit:
        time.sleep(0.05)
    limit += patience
    while left and time.monotonic() < limit:  # again, as one that is ended may just have started another
        _signal(value, signal.SIGKILL)
        time.sleep(0.02)
        left = marked().get(value)


def holder(folder: Path) -> int | None:
    """A process of this user that has this folder open, even if the folder was deleted."""
    wanted = {str(folder), f"{folder} (deleted)"}
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            links = (os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd"))
            if wanted.intersection(links):
                return pid
    return None


def _mark_of(pid: int) -> str:
    try:  # psutil takes three times as long, and this is asked often
        if os.stat(f"/proc/{pid}").st_uid != os.getuid():
            return ""
        with open(f"/proc/{pid}/environ", "rb") as file:  # empty of one that has ended and is not waited for
            words = file.read().split(b"\0")
    except OSError:
        return ""
    return next((os.fsdecode(w[len(_PREFIX) :]) for w in words if w.startswith(_PREFIX)), "")


def _signal(value: str, signum: signal.Signals) -> None:
    for pid in marked().get(value, ()):
        if not hasattr(os, "pidfd_open"):  # a Python that was built for an old kernel
            with contextlib.suppress(OSError):
                os.kill(pid, signum)
            continue
        with contextlib.suppress(OSError), closing(os.pidfd_open(pid)) as fd:  # else it has ended
            if _mark_of(pid) == value:  # while `fd` is open the number cannot become another's
                signal.pidfd_send_signal(fd, signum)
