"""The same numbers as transformers on this device, by every attention backend; the same draws as on the CPU."""

import itertools
import tempfile
from pathlib import Path

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.measure.draws import compare_draws
from benchmarks.gpu.measure.mishap import MISHAPS, reason
from benchmarks.gpu.measure.parity import Case, Oracle, Verdict, cases
from benchmarks.gpu.measure.same_outputs import compare_outputs

TITLE = "the same numbers as transformers, the same draws as on the CPU"


def run(bench: Bench) -> None:
    """See TITLE."""
    compare_draws(bench)
    try:
        compare_outputs(bench)
    except Exception as error:  # whatever a server says; the logits are to be compared all the same
        bench.findings.check("whole outputs, as on the CPU", False, reason(error))
    compare_logits(bench)


def compare_logits(bench: Bench, only: tuple[str, ...] = ()) -> None:
    """All cases, or those of some backends."""
    with tempfile.TemporaryDirectory() as folder:
        oracle = Oracle(Path(folder), bench.device)
        wanted = [case for case in cases(bench.device, bench.full) if not only or case.backend in only]
        for (dtype, page, backend), group in itertools.groupby(
            wanted, lambda case: (case.dtype, case.page_size, case.backend)
        ):
            name = f"{dtype}, pages of {page}, {backend}"
            if bench.left() < 8:
                bench.findings.note(f"left out for want of time: {name}")
                continue
            _compare(bench, oracle, name, list(group))


def _compare(bench: Bench, oracle: Oracle, name: str, group: list[Case]) -> None:
    verdicts: list[Verdict] = []
    wrong: list[str] = []
    for case in group:
        try:
            verdicts.append(oracle.compare(case))
        except MISHAPS as error:  # a kernel that cannot run here is a finding, and the others are to be tried
            wrong.append(f"{case.label}: {reason(error)}")
    wrong += [f"{v.case.label}: {v.distance:.2f} of what is allowed" for v in verdicts if not v.right]
    furthest = max((v.distance for v in verdicts), default=float("nan"))
    detail = f"{len(group)} cases, furthest {furthest:.2f} of what is allowed" + "".join(f"; {w}" for w in wrong)
    bench.findings.check(f"logits as transformers': {name}", not wrong, detail[:2000])
