"""flash-attn 2, built for this card beside the steps before: does it give transformers' numbers?"""

import importlib
import time

from benchmarks.gpu.bench import Bench

TITLE = "flash-attn 2, built for this card"

_FOR_PARITY = 20.0  # seconds that the comparison needs


def run(bench: Bench) -> None:
    """See TITLE."""
    if bench.device.type != "cuda":
        bench.findings.note("flash-attention is left out: there is no CUDA device to build it for")
        return
    assert bench.flash_site is not None, "--flash-site is missing"
    failure, absent = (bench.flash_site.with_name(name) for name in ("failure", "absent"))
    if absent.exists():
        bench.findings.note(f"flash-attention is not built: {absent.read_text(encoding='utf-8')}")
        return
    while not (bench.flash_site.exists() or failure.exists()):
        if bench.left() < _FOR_PARITY:
            bench.findings.note("flash-attention is left out: its build had not ended")
            return
        time.sleep(0.5)
    why = failure.read_text(encoding="utf-8") if failure.exists() else ""
    bench.findings.check("flash-attn 2 was built", not why, why)
    if why:
        return
    from benchmarks.gpu.steps.parity import compare_logits  # imports transformers, which takes seconds

    importlib.invalidate_caches()  # flash-attn's folder was not there when this process began
    compare_logits(bench, only=("flash_attn",))
