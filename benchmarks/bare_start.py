"""What Ray itself needs: `ray.init`, eight actors that import torch, all of them answering. Prints seconds."""

import logging
import os
import time
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

ACTORS = 8


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

        def ready(self) -> bool:
            return True

    remote: Any = ray.remote(num_cpus=1)(Bare)
    ray.get([actor.ready.remote() for actor in [remote.remote() for _ in range(ACTORS)]])
    print(time.perf_counter() - started, flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
