"""A process of a replica's size that does nothing: the same imports, threads and weights, without Ray.

python -m tests.chaos.idle EXPERT      prints a line when it is there, and waits to be killed
"""

import signal
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent.parent


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
    import actors.remote  # noqa: F401  # what a replica's process imports
    from actors.expert import Expert
    from cluster.config import Config
    from cluster.deployment import actor_specs
    from cluster.served_model import DEMO_FOLDER
    from model.checkpoint import Checkpoint

    _, specs = actor_specs(Config(), Checkpoint.open(DEMO_FOLDER))
    expert = Expert(specs[int(sys.argv[1])])
    while not expert.progress().ready:
        signal.sigtimedwait([], 0.01)
    print("there", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
