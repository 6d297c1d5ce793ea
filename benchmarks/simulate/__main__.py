"""How fast a step would be on other machines, and how well that is known.

    python -m benchmarks.simulate check CHECKPOINT [--rounds 3]
    python -m benchmarks.simulate tables

`check` calibrates the simulator on this machine, lets it say how long steps take with eight expert processes, and
measures them. `tables` says it of 8x7B and 8x22B on GPUs and CPU hosts, by their data sheets and what `check` kept of
messages (benchmarks/results/calibration.json).
"""

import argparse

from benchmarks.processes import begin_again_with
from benchmarks.simulate import check, tables


def main() -> None:
    """Run and publish."""
    begin_again_with(OMP_WAIT_POLICY="passive")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    checking = parts.add_parser("check")
    checking.add_argument("checkpoint")
    checking.add_argument("--rounds", type=int, default=3)
    parts.add_parser("tables")
    arguments = parser.parse_args()
    if arguments.part == "check":
        check.run(arguments.checkpoint, arguments.rounds)
    else:
        tables.run()


if __name__ == "__main__":
    main()
