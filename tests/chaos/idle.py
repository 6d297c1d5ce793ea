"""A process of a replica's size that does nothing: the same imports, threads and weights, without Ray.

python -m tests.chaos.idle EXPERT      prints a line when it is there, and waits to be killed
"""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent.parent
_AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")


@contextlib.contextmanager
def one_share() -> Iterator[bool]:
    """Let processes compete whatever session they are of; whether they do.

    Linux's autogroup gives each session a share of the CPUs. Ray's processes are a session of their own, so idle ones
    that are started beside it would take little from it, and replicas their full part.
    """
    if not _AUTOGROUP.exists() or _AUTOGROUP.read_text() == "0\n":
        yield True
        return
    try:
        _AUTOGROUP.write_text("0\n")
    except OSError:  # only root may
        yield False
        return
    try:
        yield True
    finally:
        _AUTOGROUP.write_text("1\n")


class IdleProcesses:
    """So many of them, from `start` to `end`. What the machine loses to them it loses to replicas as well."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, count: int) -> None:
        """Start and wait until all are there."""
        for expert in range(count):
            command = [sys.executable, "-m", "tests.chaos.idle", str(expert)]
            self._processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT))
        for process in self._processes:
            assert process.stdout is not None and process.stdout.readline() == "there\n"

    def end(self) -> None:
        """End all."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()


def main() -> None:
    """Be one."""
    import actors.remote.actors  # noqa: F401  # what a replica's process imports
    from actors.expert import Expert
    from cluster.engine.served_model import DEMO_FOLDER
    from cluster.launch.specs import actor_specs
    from cluster.settings.config import Config
    from model.checkpoint.folder import Checkpoint

    _, specs = actor_specs(Config(), Checkpoint.open(DEMO_FOLDER))
    expert = Expert(specs[int(sys.argv[1])])
    while not expert.progress().ready:
        signal.sigtimedwait([], 0.01)
    print("there", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
