"""One step in this process: `python -m benchmarks.gpu.step NAME --out FOLDER --seconds N [--rehearsal]`.

benchmarks/gpu/runner.py starts it. It ends when told to by SIGTERM, and when its parent is gone.
"""

import argparse
import importlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.findings import Findings
from model.linear import keep_one_order


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rehearsal", action="store_true")
    parser.add_argument("--flash-site", type=Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    module = importlib.import_module(f"benchmarks.gpu.steps.{arguments.name}")
    findings = Findings(arguments.out, arguments.name)
    findings.begin(module.TITLE)
    device = torch.device("cpu" if arguments.rehearsal else "cuda")
    if arguments.rehearsal:
        torch.set_num_threads(1)  # threads that wait for a core in use cost far more than they bring at tiny sizes
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest")  # TF32 would hide what fp32 is compared for
    keep_one_order(device)  # as the actors do
    until = time.monotonic() + arguments.seconds
    module.run(Bench(device, not arguments.rehearsal, arguments.out, findings, until, arguments.flash_site))


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
