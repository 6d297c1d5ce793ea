"""How long `eightwinds serve` takes to be ready, against what Ray itself needs for eight actors that import torch.

    python -m benchmarks.startup [--rounds 3]

Both are whole processes, measured in turn from exec: the bare one until its eight actors answered, ours until its
ready line, by which time Ray, nine actors, weights, gateway and a warm-up request are done.
"""

import argparse
import statistics
import subprocess
import sys
import time

from benchmarks.report import publish


def bare() -> float:
    """Seconds of one bare start, Python's own start included."""
    started = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "benchmarks.bare_start"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline(), "the bare start failed"
    took = time.perf_counter() - started
    child.wait(60)
    return took


def serve() -> float:
    """Seconds until the ready line."""
    command = [sys.executable, "-m", "cluster.cli", "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert child.stdout is not None
    assert child.stdout.readline().startswith("ready "), "serve did not become ready"
    took = time.perf_counter() - started
    child.terminate()
    child.wait(60)
    return took


def main() -> None:
    """Run and publish."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    pairs = []
    for _ in range(rounds):
        pairs.append((bare(), serve()))
        print(f"bare {pairs[-1][0]:.1f} s, serve {pairs[-1][1]:.1f} s", file=sys.stderr, flush=True)
    bares, serves = zip(*pairs, strict=True)
    rows = [[str(i + 1), f"{b:.1f}", f"{s:.1f}", f"{s / b:.2f}"] for i, (b, s) in enumerate(pairs)]
    middle = (statistics.median(bares), statistics.median(serves))
    rows.append(["median", f"{middle[0]:.1f}", f"{middle[1]:.1f}", f"{middle[1] / middle[0]:.2f}"])
    publish(
        "startup",
        "Seconds until ready: bare Ray with eight actors, eightwinds serve",
        ("round", "bare", "serve", "ratio"),
        rows,
    )


if __name__ == "__main__":
    main()
