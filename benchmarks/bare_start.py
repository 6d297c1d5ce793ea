"""The time that Ray itself needs: `ray.init`, eight actors that import torch, all of them answering. Prints seconds.

With an argument it then waits so many seconds, and prints the processor seconds that its idle actors used meanwhile.
"""

import logging
import os
import sys
import time
from typing import Any

import psutil

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

ACTORS = 8


def cpu_seconds(pids: list[int]) -> float:
    """Processor time of these processes until now."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(t.user + t.system for t in times)


def main() -> None:
    """Measure once."""
    started = time.perf_counter()
    import ray

    ray.init(
        address="local", num_cpus=ACTORS, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )

    class Bare:
        def __init__(self) -> None:
            import torch

            torch.set_num_threads(1)

        def pid(self) -> int:
            return os.getpid()

    remote: Any = ray.remote(num_cpus=1)(Bare)
    actors = [remote.remote() for _ in range(ACTORS)]
    pids = ray.get([actor.pid.remote() for actor in actors])
    print(time.perf_counter() - started, flush=True)
    if len(sys.argv) > 1:
        time.sleep(10.0)
        before = cpu_seconds(pids)
        time.sleep(float(sys.argv[1]))
        print(cpu_seconds(pids) - before, flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
