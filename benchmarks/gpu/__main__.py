"""Everything that a GPU must show, in the order of its worth, within a number of minutes.

    python -m benchmarks.gpu --out FOLDER --minutes 9            on a machine with a card
    python -m benchmarks.gpu --out FOLDER --rehearsal            the same steps on a CPU, tiny

Every finding is written the moment it is known: FOLDER/results.jsonl, a JSON record a line, and FOLDER/results.md, the
page made of them. The exit code is 0 unless something did not hold or a step failed.
"""

import argparse
import signal
import sys
import time
from pathlib import Path

from benchmarks.gpu import findings
from benchmarks.gpu.flash.library import FlashLibrary
from benchmarks.gpu.plan import chosen
from benchmarks.gpu.runner import run

_BUNDLE = Path("gpu-bundle")


def main() -> int:
    """Run the steps; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="where results go; what lies there is replaced")
    parser.add_argument("--minutes", type=float, default=None, help="for all of it: 9, or 2 in a rehearsal")
    parser.add_argument("--rehearsal", action="store_true", help="on the CPU, at tiny sizes")
    parser.add_argument("--flash-source", type=Path, default=_BUNDLE / "flash-attn-src.tar.xz")
    parser.add_argument("steps", nargs="*", help="only these")
    arguments = parser.parse_args()
    try:
        steps = chosen(arguments.steps)
    except ValueError as error:
        parser.error(str(error))
    if not arguments.rehearsal and (missing := _missing()):
        parser.error(missing)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    for name in (findings.LOG, findings.PAGE):
        (out / name).unlink(missing_ok=True)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: sys.exit("stopped"))
    minutes = arguments.minutes or (2.0 if arguments.rehearsal else 9.0)
    began = time.monotonic()
    library = FlashLibrary(arguments.flash_source, out)
    if not arguments.rehearsal:
        library.start()
    try:
        options = ["--rehearsal"] if arguments.rehearsal else []
        run(steps, out, 60 * minutes, options, library.site, lambda name: library.stop() if name == "flash" else None)
    finally:
        library.remove()
        for torn in out.glob(".*"):  # what a stopped step was about to replace a file with
            torn.unlink()
    return _summary(out, time.monotonic() - began, strict=arguments.rehearsal)


def _missing() -> str:
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    return "" if torch.cuda.is_available() else "torch sees no CUDA device here; --rehearsal runs on the CPU"


def _summary(out: Path, seconds: float, strict: bool) -> int:
    """Print how it went. A rehearsal has to come to its end; a run on a card may run out of time."""
    records = findings.read(out)
    print((out / findings.PAGE).read_text(encoding="utf-8"))
    wrong, unfinished = findings.failed(records), findings.unfinished(records)
    for line in wrong:
        print(f"FAILED {line}")
    for line in unfinished:
        print(f"UNFINISHED {line}")
    print(f"{seconds:.0f} s, {len(wrong)} failures, {len(unfinished)} steps without an end; see {out}")
    return 1 if wrong or (strict and unfinished) else 0


if __name__ == "__main__":
    sys.exit(main())
