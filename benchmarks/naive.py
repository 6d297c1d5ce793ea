"""The naive dispatch to compare with: one Ray call per expert with a torch tensor, in a Ray of its own with Ray's
own defaults. A child process, told on stdin how many bytes and how often; answers microseconds, one line each.
"""

import json
import logging
import os
import sys
import time
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
import ray
import torch

EXPERTS = 8


def main() -> None:
    """Serve measurements until stdin ends."""
    torch.set_num_threads(1)
    ray.init(address="local", num_cpus=10, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)

    class Echo:
        def __init__(self) -> None:
            torch.set_num_threads(1)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return rows

    remote: Any = ray.remote(num_cpus=0)(Echo)
    experts = [remote.remote() for _ in range(EXPERTS)]
    ray.get([e.forward.remote(torch.zeros(1)) for e in experts])
    print("ready", flush=True)
    for line in sys.stdin:
        size, count = json.loads(line)
        rows = torch.zeros(size // 2, dtype=torch.bfloat16)
        times = []
        for _ in range(count):
            started = time.perf_counter()
            ray.get([e.forward.remote(rows) for e in experts])
            times.append((time.perf_counter() - started) * 1e6)
        print(json.dumps(times), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
