"""The head: whose plans it follows, what it answers when it cannot, and what it counts."""

import dataclasses
import os
import random
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from actors import head as module
from actors.expert import Expert
from actors.head import Head, LocalHead
from actors.replica import Replica, one_each
from actors.routing.replicas import Replicas
from actors.routing.router import ExpertRouter
from actors.seams import HeadTaken
from actors.transport.local import LocalTransport
from actors.transport.seam import ExpertCall, ExpertReply
from model.batch import Chunk, NewSequence, StepFailure, StepPlan, StepResult
from tests.checkpoints import GREEDY, Driver, Request, load_head, random_weights, spec, tiny, write

WINDOW = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("checkpoint"), tiny(sliding_window=WINDOW))


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(97) for _ in range(rng.randrange(1, 30))] for _ in range(count)]


def run(head: Head, requests: Sequence[Request], epoch: int = 1) -> Driver:
    driver = Driver(head, epoch, WINDOW)
    driver.run(requests)
    return driver


def one_token(head: Head, **changes: Any) -> StepResult | StepFailure:
    plan = StepPlan(
        7, 1, head.incarnation, (), (NewSequence(0, (5,), 1, GREEDY),), (Chunk(0, 0, 1, (0,), sample=True),)
    )
    return head.step(dataclasses.replace(plan, **changes))


@pytest.mark.parametrize("changes", [{"epoch": 0}, {"epoch": 2}, {"incarnation": "another head"}], ids=str)
def test_plan_of_another_epoch_or_for_another_head_is_refused(changes: dict[str, Any], folder: Path) -> None:
    head = load_head(folder)
    head.begin(1)
    refused = one_token(head, **changes)
    assert isinstance(refused, StepFailure) and (refused.step, refused.kind) == (7, "stale")
    assert isinstance(one_token(head), StepResult)  # and it was not carried out in part: slot 0 is free


def test_plan_before_any_engine_began_is_refused(folder: Path) -> None:
    refused = one_token(load_head(folder))
    assert isinstance(refused, StepFailure) and refused.kind == "stale"


def test_each_head_has_an_incarnation_of_its_own(folder: Path) -> None:
    heads = [load_head(folder) for _ in range(3)]
    assert len({head.begin(1).incarnation for head in heads}) == 3


@pytest.mark.parametrize("epoch", [5, 4, -1])
def test_engine_of_no_higher_epoch_finds_the_head_taken(epoch: int, folder: Path) -> None:
    head = load_head(folder)
    head.begin(5)
    with pytest.raises(HeadTaken, match=f"an engine of epoch 5 drives this head; {epoch} came too late"):
        head.begin(epoch)
    assert isinstance(one_token(head, epoch=5), StepResult)


def test_next_engine_finds_no_sequence_of_the_last(folder: Path) -> None:
    head, prompt = load_head(folder), prompts(1)[0]
    first = Driver(head, 1, WINDOW).run([Request(prompt, 10)])
    head.begin(2)
    assert isinstance(one_token(head, epoch=2), StepResult)  # left in slot 0
    assert Driver(head, 3, WINDOW).run([Request(prompt, 10)]) == first


def test_slot_serves_one_sequence_after_another(folder: Path) -> None:
    head, texts = load_head(folder), prompts(4, seed=6)
    driver = Driver(head, window=WINDOW)
    assert [driver.run([Request(p, 6)])[0] for p in texts] == [
        Driver(load_head(folder), window=WINDOW).run([Request(p, 6)])[0] for p in texts
    ]


def test_plan_may_only_release(folder: Path) -> None:
    head = load_head(folder)
    head.begin(1)
    one_token(head)
    released = one_token(head, release=(0,), admit=(), chunks=())
    assert isinstance(released, StepResult) and released.tokens == ()
    assert isinstance(one_token(head), StepResult)


# ---- failures -------------------------------------------------------------------------------------------------


class Failing:
    """A transport to good experts of which some calls fail."""

    def __init__(self, failures: int) -> None:
        self.local, self.failures = LocalTransport(), failures
        self.replies: list[ExpertReply] = []

    def connect(self, replica: Replica) -> Replica:
        return replica

    def submit(self, calls: Sequence[ExpertCall]) -> None:
        failing, self.failures = calls[: self.failures], self.failures - min(self.failures, len(calls))
        self.replies += [ExpertReply(call.call_id, None, error="fell over") for call in failing]
        self.local.submit(calls[len(failing) :])

    def poll(self, timeout: float, call_ids: Collection[int], first: bool = False) -> list[ExpertReply]:
        replies, self.replies = self.replies + self.local.poll(timeout, call_ids), []
        return replies

    def close(self) -> None:
        """Nothing is held."""

    def abandon(self, call_ids: Collection[int]) -> None:
        pass


def failing_head(folder: Path, failures: int, grace: float) -> Head:
    head, experts = Head(spec(folder)), [Expert(spec(folder, e)) for e in range(8)]
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds

    replicas = Replicas(one_each(experts), clock=lambda: now[0])
    head.connect(ExpertRouter(Failing(failures), replicas, grace=grace, clock=lambda: now[0], pause=pause))
    return head


def test_calls_that_were_sent_again_are_counted_and_change_no_token(folder: Path) -> None:
    requests = [Request(prompt, 5) for prompt in prompts(3, seed=7)]
    driver = Driver(failing_head(folder, failures=5, grace=60), window=WINDOW)
    assert driver.run(requests) == Driver(load_head(folder), window=WINDOW).run(requests)
    assert sum(result.retries for result in driver.results) == 5


def test_expert_without_a_replica_makes_the_step_unavailable_and_the_head_usable(folder: Path) -> None:
    head, prompt = failing_head(folder, failures=1, grace=0), prompts(1, seed=8)[0]
    head.begin(1)
    failure = one_token(head)
    assert isinstance(failure, StepFailure) and (failure.step, failure.kind) == (7, "unavailable")
    assert "no answer from experts [" in failure.detail and "fell over" in failure.detail
    behind = one_token(head)  # it was sent before the failure was known
    assert isinstance(behind, StepFailure) and behind.kind == "stale", "it does not wait for the expert again"
    assert Driver(head, 2, WINDOW).run([Request(prompt, 9)]) == Driver(load_head(folder), 1, WINDOW).run(
        [Request(prompt, 9)]
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"release": (3,)},
        {"chunks": (Chunk(4, 0, 1, (0,), True),)},
        {"chunks": (Chunk(0, 0, 2, (0,), True),)},
        {"chunks": (Chunk(0, 0, 1, (), True),)},
        {"chunks": (Chunk(0, 0, 1, (10**6,), True),)},
    ],
    ids=["release", "unknown slot", "no such token", "no page", "no such page"],
)
def test_plan_that_cannot_be_is_an_internal_failure_with_its_traceback(changes: dict[str, Any], folder: Path) -> None:
    head = load_head(folder)
    head.begin(1)
    failure = one_token(head, **changes)
    assert isinstance(failure, StepFailure) and (failure.step, failure.kind) == (7, "internal")
    assert "Traceback" in failure.detail and "Error" in failure.detail


def test_weights_that_cannot_be_loaded_refuse_the_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(module, "Tensors", fail)
    head = Head(spec(folder))
    with pytest.raises(RuntimeError, match="OSError: the disk is gone"):
        head.begin(1)
    assert head.progress().error == "OSError: the disk is gone"
    assert (head.report().weight_bytes, head.report().tensors) == (0, {})


def test_kv_memory_below_a_page_is_refused(folder: Path) -> None:
    enough = spec(folder, pages=1)
    assert Head(enough).begin(1).page_count == 1
    with pytest.raises(ValueError, match=r"one page of 4 tokens needs 1024: raise kv\.memory_bytes"):
        Head(dataclasses.replace(enough, kv_memory_bytes=enough.kv_memory_bytes - 1))


def test_kv_memory_may_be_a_share_of_what_is_free_once_the_weights_are_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [10_000]
    monkeypatch.setattr(module, "free_bytes", lambda device: free[0])
    half = dataclasses.replace(spec(folder), kv_memory_share=0.5)
    assert Head(half).begin(1).page_count == 10_000 // 2 // 1024
    free[0] = 2_000
    with pytest.raises(ValueError, match=r"one page of 4 tokens needs 1024: raise kv\.memory_share"):
        Head(half).begin(1)


# ---- what it counts and reports -------------------------------------------------------------------------------


def test_counts_are_rows_times_k_and_traces_are_each_sequences_share(folder: Path) -> None:
    requests = [Request(p, 6, (4, 9, 1), routing=i != 1) for i, p in enumerate(prompts(3, seed=9))]
    driver = Driver(load_head(folder, pages=100), window=WINDOW)
    steps = list[tuple[Chunk, ...]]()
    step = driver.head.step

    def recorded(plan: StepPlan) -> StepResult | StepFailure:
        steps.append(plan.chunks)
        return step(plan)

    driver.head.step = recorded  # type: ignore[method-assign]
    driver.run(requests)
    for chunks, result in zip(steps, driver.results, strict=False):
        assert len(result.expert_tokens) == 2 and all(len(layer) == 8 for layer in result.expert_tokens)
        assert [sum(layer) for layer in result.expert_tokens] == [2 * sum(c.length for c in chunks)] * 2
        routing = dict(result.routing)
        assert routing.keys() == {c.slot for c in chunks if c.slot != 1}
        for chunk in chunks:
            if chunk.slot in routing:
                assert [sum(layer) for layer in routing[chunk.slot]] == [2 * chunk.length] * 2
        if 1 not in {c.slot for c in chunks}:
            for i, layer in enumerate(result.expert_tokens):
                assert layer == tuple(map(sum, zip(*(own[i] for own in routing.values()), strict=True)))


def test_trace_of_a_sequence_does_not_depend_on_its_batch(folder: Path) -> None:
    requests = [Request(prompt, 6, (3, 1), routing=True) for prompt in prompts(4, seed=10)]
    together = run(load_head(folder, pages=100), requests)
    for slot, request in enumerate(requests):
        alone = run(load_head(folder), [request])
        shares = [dict(result.routing)[slot] for result in together.results if slot in dict(result.routing)]
        assert shares == [dict(result.routing)[0] for result in alone.results]


def test_result_says_which_step_it_answers_and_how_long_it_took(folder: Path) -> None:
    head = load_head(folder)
    head.begin(3)
    result = one_token(head, epoch=3)
    assert isinstance(result, StepResult)
    assert (result.step, result.epoch, result.retries, result.routing) == (7, 3, 0, ())
    assert result.seconds >= result.dispatch_seconds > 0


@pytest.mark.parametrize("tied", [False, True])
def test_report_names_the_heads_tensors_and_no_experts(tied: bool, tmp_path: Path) -> None:
    content = tiny(tie_word_embeddings=tied)
    head = load_head(write(tmp_path, content), pages=9)
    info = head.begin(1)
    assert (info.page_count, info.page_size, info.incarnation) == (9, 4, head.incarnation)
    report, own = head.report(), {n: w.nbytes for n, w in random_weights(content).items() if ".experts." not in n}
    assert report.tensors == own and report.weight_bytes == sum(own.values())
    assert (report.pid, report.spec) == (os.getpid(), head.spec)
    assert head.progress().ready and head.progress().loaded_bytes == sum(own.values())


def test_local_head_carries_out_a_plan_when_it_is_polled(folder: Path) -> None:
    head = load_head(folder)
    handle = LocalHead(head)
    info = handle.begin(1)
    assert handle.poll(0) is None
    plan = StepPlan(0, 1, info.incarnation, (), (NewSequence(0, (5,), 1, GREEDY),), (Chunk(0, 0, 1, (0,), True),))
    handle.submit(plan)
    result = handle.poll(None)
    assert isinstance(result, StepResult) and len(result.tokens) == 1
    assert handle.poll(0) is None


def test_a_lost_device_ends_more_than_the_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process can do nothing more: its actor ends, and a new one begins."""
    head = load_head(folder)
    head.begin(1)

    def broken(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(ExpertRouter, "run", broken)
    with pytest.raises(torch.AcceleratorError):
        one_token(head)
