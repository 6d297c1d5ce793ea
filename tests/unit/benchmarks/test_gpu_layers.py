from collections import Counter
from pathlib import Path

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.findings import Findings, failed, read
from benchmarks.gpu.measure.host_calls import HostCalls
from benchmarks.gpu.steps import layers


def test_every_part_has_its_row_at_every_size(tmp_path: Path) -> None:
    layers.run(Bench(torch.device("cpu"), False, tmp_path, Findings(tmp_path, "layers")))
    found = read(tmp_path)
    times = [r["cells"] for r in found if r["kind"] == "row" and r["table"] == layers.TIMES]
    assert {(cells["part"], cells["rows"]) for cells in times} == {
        (part, rows)
        for part in (
            "expert, a layer",
            "head, a layer",
            "head, embedding and output",
            "head, attention's tables of a step",
        )
        for rows in (1, 4)
    }
    assert all(isinstance(cells["us"], float) for cells in times), "a reason stands in the place of a number"
    (host,) = [r["cells"] for r in found if r["kind"] == "row" and r["table"] == layers.HOST]
    assert host["aten operators a layer"] > 10
    assert not failed(found)


def test_what_there_is_no_time_for_is_left_out(tmp_path: Path) -> None:
    layers.run(Bench(torch.device("cpu"), False, tmp_path, Findings(tmp_path, "layers"), until=0.0))
    found = read(tmp_path)
    assert not [r for r in found if r["kind"] == "row"]
    assert [r["text"].split(" (")[0] for r in found if r["kind"] == "note"] == ["left out: expert", "left out: head"]


def test_calls_of_cuda_are_told_apart_by_their_names() -> None:
    names = {
        "aten::mm": 5,
        "cudaLaunchKernel": 7,
        "cudaLaunchKernelExC_v11060": 2,
        "cuLaunchKernelEx": 1,
        "cudaMemcpyAsync": 4,
        "cudaMemcpy": 1,
        "cudaStreamSynchronize": 3,
        "cudaStreamWaitEvent": 9,
        "cudaEventRecord": 9,
    }
    calls = HostCalls(Counter(names), ms=1.0, waiting_ms=0.5)
    assert (calls.launches, calls.copies, calls.waits, calls.operators) == (10, 5, 4, 5)
    assert calls.told().startswith("cudaStreamWaitEvent 9, ") and "aten" not in calls.told()
