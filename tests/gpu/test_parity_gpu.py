"""The same logits as transformers on the same device, and the same draws as on the CPU: what `python -m benchmarks.gpu
parity` measures, a test each.
"""

from pathlib import Path

import pytest
import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.findings import Findings, failed, read
from benchmarks.gpu.measure import draws, same_outputs
from benchmarks.gpu.measure.parity import Case, Oracle, cases

DEVICE = torch.device("cuda")


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return Oracle(tmp_path_factory.mktemp("checkpoints"), DEVICE)


@pytest.mark.parametrize("case", list(cases(DEVICE)), ids=lambda c: f"{c.dtype}, {c.page_size}, {c.backend}, {c.label}")
def test_logits_are_those_of_transformers(case: Case, oracle: Oracle) -> None:
    verdict = oracle.compare(case)
    assert verdict.right, f"{verdict.distance:.2f} of what is allowed"


@pytest.mark.parametrize("compare", [draws.compare_draws, same_outputs.compare_outputs], ids=lambda f: f.__name__)
def test_draws_and_outputs_are_those_of_the_cpu(compare: object, tmp_path: Path) -> None:
    compare(Bench(DEVICE, True, tmp_path, Findings(tmp_path, "parity")))  # type: ignore[operator]
    assert failed(read(tmp_path)) == []
