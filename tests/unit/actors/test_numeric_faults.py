"""A model whose numbers overflow: whoever met that is told, where it began is said, and all others go on."""

from pathlib import Path

import pytest
import torch

from actors.head import Head
from model.batch import Chunk, NewSequence, SamplingParams, SequenceFault, StepPlan, StepResult
from model.trunk import Forward
from tests.checkpoints import Driver, Request, load_head, random_weights, tiny, write

BAD = 50  # a token whose embedding is infinite
MODEL = tiny(num_hidden_layers=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tensors = random_weights(MODEL)
    tensors["model.embed_tokens.weight"][BAD] = torch.inf
    return write(tmp_path, MODEL, tensors)


def step(head: Head, number: int, *prompts: list[int], sampling: SamplingParams, release: int = 0) -> StepResult:
    """The prompts, all of each at once, in slots and pages from 0 on."""
    admit = tuple(NewSequence(i, tuple(p), len(p), sampling) for i, p in enumerate(prompts))
    chunks = tuple(Chunk(i, 0, len(p), (2 * i, 2 * i + 1), True) for i, p in enumerate(prompts))
    result = head.step(StepPlan(number, 1, head.incarnation, tuple(range(release)), admit, chunks))
    assert isinstance(result, StepResult), result
    return result


@pytest.mark.parametrize(
    "sampling", [SamplingParams(0.0), SamplingParams(1.0, top_p=0.9, top_k=5, logprobs=3)], ids=str
)
def test_a_sequence_of_no_numbers_is_a_fault_and_its_batch_mates_are_as_alone(
    sampling: SamplingParams, folder: Path
) -> None:
    head = load_head(folder)
    head.begin(1)
    good = [5, 6, 7, 8, 9]
    alone = step(head, 1, good, sampling=sampling).tokens
    mixed = step(head, 2, good, [3, BAD, 4, 5, 6], sampling=sampling, release=1)
    assert mixed.tokens == alone
    (fault,) = mixed.faults
    assert (fault.slot, fault.kind) == (1, "numeric")
    assert "step 2, layer 0" in fault.detail
    after = step(head, 3, [1, 2, 3], good, sampling=sampling, release=2)
    assert after.tokens[1].token_id == alone[0].token_id, "in pages that held what is no number"
    assert not after.faults


def test_a_plan_that_was_made_ahead_runs_without_the_faulty_one(folder: Path) -> None:
    head = load_head(folder)
    head.begin(1)
    good = [5, 6, 7, 8, 9]
    first = step(head, 1, good, [3, BAD, 4, 5, 6], sampling=SamplingParams(0.0))
    assert [fault.slot for fault in first.faults] == [1]
    decodes = tuple(Chunk(slot, 5, 1, (), True) for slot in (0, 1))
    ahead = head.step(StepPlan(2, 1, head.incarnation, (), (), decodes))
    assert isinstance(ahead, StepResult)
    assert [token.slot for token in ahead.tokens] == [0] and not ahead.faults
    alone = head.step(StepPlan(3, 1, head.incarnation, (), (), (Chunk(1, 5, 1, (), True),)))
    assert isinstance(alone, StepResult) and not alone.tokens, "a step of nobody else is empty"
    assert not step(head, 4, good, good, sampling=SamplingParams(0.0), release=2).faults, "the slot is free again"


def test_the_layer_whose_experts_overflow_is_named(tmp_path: Path) -> None:
    tensors = random_weights(MODEL)
    for expert in range(8):
        tensors[f"model.layers.1.block_sparse_moe.experts.{expert}.w2.weight"] *= 3e38
    head = load_head(write(tmp_path, MODEL, tensors))
    head.begin(1)
    (fault,) = step(head, 7, [5, 6], sampling=SamplingParams(0.0)).faults
    assert fault == SequenceFault(0, "numeric", "its logits hold NaN or infinity (first in step 7, layer 1, experts)")


def test_a_place_is_looked_for_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = load_head(folder)
    head.begin(1)
    looked: list[object] = []

    def look(forward: Forward, place: list[str]) -> Forward:
        looked.append(forward)
        return forward

    monkeypatch.setattr("actors.head.watched", look)
    for number in range(3):
        result = step(head, number, [BAD], sampling=SamplingParams(0.0), release=min(number, 1))
        assert result.faults[0].detail.endswith("(first in step 0, behind the last layer)")
    assert len(looked) == 1


def test_scores_of_a_prompt_that_are_no_numbers_are_a_fault(folder: Path) -> None:
    head = load_head(folder)
    head.begin(1)
    admit = (NewSequence(0, (BAD, 3, 4), 3, SamplingParams(0.0), prompt_logprobs=1),)
    result = head.step(StepPlan(0, 1, head.incarnation, (), admit, (Chunk(0, 0, 2, (0,), False),)))
    assert isinstance(result, StepResult)
    assert not result.prompts
    assert "its prompt" in result.faults[0].detail


def test_a_sound_model_has_no_faults(tmp_path: Path) -> None:
    driver = Driver(load_head(write(tmp_path, MODEL)))
    driver.run([Request([1, 2, 3], 5), Request([4], 3)])
    assert not any(result.faults for result in driver.results)
