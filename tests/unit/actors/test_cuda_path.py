"""Head and experts on a device that only pretends to be CUDA: the same tokens as on a CPU, and one wait a layer."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.expert import Expert
from actors.head import Head
from actors.replica import one_each
from actors.routing.replicas import Replicas
from actors.routing.router import ExpertRouter
from model.batch import Chunk, NewSequence, SampledToken, SamplingParams, StepFailure, StepPlan, StepResult
from model.config import MixtralConfig
from model.device.host_link import host_link, put
from tests.by_message import ByMessage
from tests.checkpoints import Driver, Request, load_head, random_weights, spec, tiny, write
from tests.flash_libraries import install
from tests.pretend_cuda import PretendCuda, Stream, pretend_cuda

LAYERS = 3
LAST_BITS = {"float32": 1e-4, "bfloat16": 0.1}  # products on a device are not made in blocks
MODEL = tiny(num_hidden_layers=LAYERS, num_attention_heads=8, num_key_value_heads=2)
REQUESTS = [
    Request([5, 6, 7, 8, 9, 10, 11], 9, (3, 2, 1)),
    Request([3], 6, sampling=SamplingParams(temperature=0.9, seed=4, top_k=20, top_p=0.9, min_p=0.01)),
    Request([9, 9, 2], 7, sampling=SamplingParams(0.0, repetition_penalty=1.3, presence_penalty=0.4, logprobs=3)),
    Request([4, 1], 8, sampling=SamplingParams(1.0, logit_bias=((7, 3.0), (8, -9.0)), min_tokens=3, banned=(2, 5))),
    Request(list(range(30)), 3, (11, 1), sampling=SamplingParams(temperature=0.7, seed=1, logprobs=0), routing=True),
]


class AtOnce:
    """A thread whose work is done when it is started: the pretended device exists in one thread only."""

    def __init__(self, target: Any, **_: object) -> None:
        self.start = target


def on_cuda(folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, **changes: Any) -> Head:
    monkeypatch.setattr("actors.loading.threading.Thread", AtOnce)
    own = dataclasses.replace(spec(folder, None, dtype), device="cuda", **changes)
    head = Head(own)
    experts = [Expert(dataclasses.replace(spec(folder, e, dtype), device="cuda")) for e in range(8)]
    head.connect(ExpertRouter(ByMessage(), Replicas(one_each(experts)), link=host_link("cuda")))
    return head


def told(tokens: Sequence[SampledToken]) -> list[float]:
    return [value for t in tokens for value in (t.logprob or 0.0, *(best for _, best in t.top))]


@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tokens_are_those_of_the_cpu(
    dtype: str, window: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, MODEL | {"sliding_window": window, "dtype": dtype})
    expected = Driver(load_head(folder, dtype), window=window)
    wanted = expected.run(REQUESTS)
    with pretend_cuda(monkeypatch):
        found = Driver(on_cuda(folder, monkeypatch, dtype), window=window)
        assert found.run(REQUESTS) == wanted
    for a, b in zip(expected.results, found.results, strict=True):
        assert (a.routing, a.expert_tokens) == (b.routing, b.expert_tokens)
        assert told(b.tokens) == pytest.approx(told(a.tokens), abs=LAST_BITS[dtype])


class Watched:
    """A head, and how often it waited for its device in each step; every call of an expert there waits once, too."""

    def __init__(self, head: Head, cuda: PretendCuda) -> None:
        self._head, self._cuda = head, cuda
        self.begin = head.begin
        self.waits: list[int] = []
        self.calls: list[int] = []

    def step(self, plan: StepPlan) -> StepResult | StepFailure:
        before = self._cuda.waits
        result = self._head.step(plan)
        assert isinstance(result, StepResult), result
        if plan.chunks:
            self.calls.append(sum(count > 0 for layer in result.expert_tokens for count in layer))
            self.waits.append(self._cuda.waits - before - self.calls[-1])
        return result


@pytest.mark.parametrize("libraries", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_waits_once_a_layer_and_once_for_its_tokens(
    dtype: str, libraries: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if libraries:
        install(monkeypatch)
    folder = write(tmp_path, MODEL | {"dtype": dtype})
    with pretend_cuda(monkeypatch) as cuda:
        watched = Watched(on_cuda(folder, monkeypatch, dtype), cuda)
        Driver(watched).run(REQUESTS)  # type: ignore[arg-type]
    assert max(watched.calls) > 4 * LAYERS, "several experts are called a layer"
    assert set(watched.waits) == {LAYERS + 1}


def test_share_of_the_kv_cache_is_of_the_memory_that_the_device_has_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, MODEL)
    page = 4 * MixtralConfig.load(folder).kv_token_bytes(4)
    with pretend_cuda(monkeypatch, free=101 * page):
        head = on_cuda(folder, monkeypatch, "float32", kv_memory_share=0.5)
        assert head.begin(1).page_count == 50


def test_the_device_that_pretends_forgives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other tests rest on."""
    host = torch.ones(3)
    with pretend_cuda(monkeypatch) as cuda:
        there = put([1.0, 2.0, 3.0], "cuda")
        assert there.device.type == "cuda" and host.device.type == "cpu" and there[1:].is_cuda
        for mistake in (
            lambda: there + host,
            lambda: there.tolist(),
            lambda: bool(there[0] > 1),
            lambda: there.cpu(),
            lambda: there.to("cpu"),
            lambda: torch.tensor([1], device="cuda"),
            lambda: host.copy_(there),
            lambda: host.copy_(there, non_blocking=True),
            lambda: host.to("cuda", non_blocking=True),
            lambda: there[[0, 1]],
            lambda: there[there > 1],
            lambda: torch.where(there > 1),
            lambda: there.unique(),
            lambda: torch.equal(there, there),
        ):
            with pytest.raises(AssertionError, match="device"):
                mistake()
        side: Any = Stream()
        with torch.cuda.stream(side), pytest.raises(AssertionError, match="wait_stream"):
            there + 1
        side.wait_stream(cuda.current)
        with torch.cuda.stream(side), pytest.raises(AssertionError, match="record_stream"):
            there + 1
        host = torch.empty(3, pin_memory=True)
        there.record_stream(side)
        with torch.cuda.stream(side):
            host.copy_(there, non_blocking=True)
        assert host.tolist() == [-77.0] * 3, "its copy has not ended yet"
        side.synchronize()
        assert host.tolist() == [1.0, 2.0, 3.0]
        assert cuda.waits == 1


def test_a_fault_of_numbers_is_found_and_placed_and_costs_no_wait_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = random_weights(MODEL)
    tensors["model.embed_tokens.weight"][50] = torch.inf
    folder = write(tmp_path, MODEL, tensors)
    with pretend_cuda(monkeypatch) as cuda:
        head = on_cuda(folder, monkeypatch, "float32")
        head.begin(1)
        waits, faults = [], []
        for number, prompt in enumerate(((5, 6), (50, 6), (50, 7))):
            admit = (NewSequence(0, prompt, 2, SamplingParams(0.0)),)
            before, release = cuda.waits, (0,) if number else ()
            result = head.step(StepPlan(number, 1, head.incarnation, release, admit, (Chunk(0, 0, 2, (0,), True),)))
            assert isinstance(result, StepResult), result
            calls = sum(count > 0 for layer in result.expert_tokens for count in layer)
            waits.append(cuda.waits - before - calls)
            faults.append([fault.detail for fault in result.faults])
    assert waits[0] == waits[2] == LAYERS + 1, "only the first fault is looked for"
    assert waits[1] > LAYERS + 1
    assert faults[0] == [] and "first in step 1, layer 0" in faults[1][0] and faults[1] == faults[2]
