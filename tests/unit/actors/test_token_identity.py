"""A sequence gets the same tokens, and mostly the same bits, however its batch, chunks and pages are chosen."""

import dataclasses
import functools
import random
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from actors.expert import Expert
from actors.head import Head
from actors.replica import Replica
from actors.transport.rows import HEADER_BYTES, decode_header
from actors.transport.seam import ExpertCall, ExpertReply, encode_call
from model.batch import Chunk, NewSequence, SampledToken, SamplingParams, StepPlan, StepResult
from model.matrices import int8
from model.wire import tensor_from
from tests.checkpoints import GREEDY, Driver, Request, load_head, tiny, write

pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable")

WINDOW = 12
SEEN = dataclasses.replace(GREEDY, logprobs=97)  # reports the log-probability of every token
SAMPLINGS = {"greedy": GREEDY, "hot": SamplingParams(temperature=1.1, top_p=0.95, seed=11, output_index=2)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("checkpoint"), tiny(sliding_window=WINDOW))


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(97) for _ in range(rng.randrange(1, 30))] for _ in range(count)]


def tokens(driver: Driver, slot: int) -> list[SampledToken]:
    """What was sampled for a slot, all that was reported of it, whatever the slot's number."""
    return [dataclasses.replace(t, slot=0) for result in driver.results for t in result.tokens if t.slot == slot]


def run(head: Head, requests: Sequence[Request], epoch: int = 1, window: int | None = WINDOW) -> Driver:
    driver = Driver(head, epoch, window)
    driver.run(requests)
    return driver


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_of_a_sequence_are_the_same_bits_in_any_batch(dtype: str, folder: Path) -> None:
    requests = [Request(prompt, 12, (7, 3, 1), SEEN) for prompt in prompts(9)]
    together = run(load_head(folder, dtype, pages=200), requests)
    for slot, request in enumerate(requests):
        alone = run(load_head(folder, dtype), [request])
        assert tokens(alone, 0) == tokens(together, slot)
        assert len(tokens(alone, 0)[0].top) == 97


@pytest.mark.parametrize("name", SAMPLINGS)
def test_chunks_and_batch_mates_change_no_token(name: str, folder: Path) -> None:
    sampling = SAMPLINGS[name]
    texts = prompts(6, seed=1)
    expected = [run(load_head(folder), [Request(p, 30, sampling=sampling)]).results for p in texts]
    ids = [[token.token_id for result in results for token in result.tokens] for results in expected]
    for sizes in [(1,), (2, 5, 3), (13,)]:
        requests = [Request(p, 30, (*sizes[i % len(sizes) :], 1), sampling) for i, p in enumerate(texts)]
        driver = Driver(load_head(folder, pages=150), window=WINDOW)
        assert driver.run(requests) == ids
    assert len({token for text in ids for token in text}) > 30  # no text of one repeated token


@pytest.mark.parametrize("window", [None, WINDOW, 70])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_chunks_of_a_prompt_change_no_bit(dtype: str, window: int | None, tmp_path: Path) -> None:
    """Wherever they are cut, one token included: a prefix that is found in the cache cuts anywhere."""
    folder, rng = write(tmp_path, tiny(sliding_window=window)), random.Random(5)
    texts = [[rng.randrange(97) for _ in range(count)] for count in (1, 40, 64, 65, 150, 200)]
    expected = [tokens(run(load_head(folder, dtype), [Request(p, 4, sampling=SEEN)], window=window), 0) for p in texts]
    for sizes in [(1,), (63, 2, 1), (13,), (64,), (100,)]:
        requests = [Request(p, 4, (*sizes[i % len(sizes) :], *sizes), SEEN) for i, p in enumerate(texts)]
        driver = run(load_head(folder, dtype, pages=200), requests, window=window)
        assert [tokens(driver, slot) for slot in range(len(texts))] == expected, sizes


@pytest.mark.parametrize("page_size", [1, 5, 64])
def test_size_of_a_page_changes_no_bit(page_size: int, folder: Path) -> None:
    requests = [Request(prompt, 10, (4,), SEEN) for prompt in prompts(3, seed=2)]
    expected = run(load_head(folder, pages=100, page_size=4), requests)
    assert (
        run(load_head(folder, pages=200, page_size=page_size), requests).results[-1].tokens
        == expected.results[-1].tokens
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_micro_batches_change_no_bit(dtype: str, folder: Path) -> None:
    requests = [Request(prompt, 12, (7, 3, 1), SEEN, routing=True) for prompt in prompts(9)]
    one, two = (run(load_head(folder, dtype, pages=200, micro_batches=n), requests) for n in (1, 2))
    for a, b in zip(one.results, two.results, strict=True):
        assert (a.tokens, a.expert_tokens, a.routing) == (b.tokens, b.expert_tokens, b.routing)


@pytest.mark.parametrize(("quantization", "own"), [("int8", "none"), ("int4", "none"), ("none", "int8")])
def test_quantized_matrices_give_the_same_bits_in_any_batch(quantization: str, own: str, tmp_path: Path) -> None:
    folder = write(tmp_path, tiny(hidden_size=128, intermediate_size=192, sliding_window=WINDOW))
    requests = [Request(prompt, 12, (7, 3, 1), SEEN) for prompt in prompts(7)]
    head = functools.partial(load_head, folder, "bfloat16", quantization=quantization, own_quantization=own)
    together = run(head(pages=200), requests)
    for slot, request in enumerate(requests):
        alone = run(head(), [request])
        assert tokens(alone, 0) == tokens(together, slot)
    assert together.results[-1].tokens != run(load_head(folder, "bfloat16", pages=200), requests).results[-1].tokens


def test_int8_experts_give_the_same_bits_on_machines_with_other_engines(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine without fbgemm, or with one that saturates."""
    requests = [Request(prompt, 12, (7, 3, 1), SEEN) for prompt in prompts(7)]
    here = run(load_head(folder, "bfloat16", pages=200, quantization="int8"), requests)
    monkeypatch.setattr(int8, "_fbgemm", int8._integers)
    there = run(load_head(folder, "bfloat16", pages=200, quantization="int8"), requests)
    assert [result.tokens for result in here.results] == [result.tokens for result in there.results]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SAMPLINGS)
def test_a_sequence_that_begins_again_goes_on_with_the_same_bits(name: str, dtype: str, folder: Path) -> None:
    """After a preemption or a lost head it comes back with its output behind its prompt, and is run through again."""
    sampling = dataclasses.replace(SAMPLINGS[name], logprobs=97)
    for seed in range(3, 8):
        (prompt,) = prompts(1, seed)
        whole = tokens(run(load_head(folder, dtype), [Request(prompt, 25, sampling=sampling)]), 0)
        ids = [token.token_id for token in whole]
        head = load_head(folder, dtype)
        for done in (1, 7, 19):
            info = head.begin(done)
            admit = NewSequence(0, tuple(prompt + ids[:done]), len(prompt), sampling)
            pages = tuple(range(-(-(len(prompt) + 25) // info.page_size)))
            chunk = Chunk(0, 0, len(admit.token_ids), pages, sample=True)
            result = head.step(StepPlan(0, done, info.incarnation, (), (admit,), (chunk,)))
            for step in range(1, 26 - done):
                assert isinstance(result, StepResult) and result.tokens[0] == whole[done + step - 1]
                chunk = Chunk(0, chunk.start + chunk.length, 1, (), sample=True)
                result = head.step(StepPlan(step, done, info.incarnation, (), (), (chunk,)))


def test_rows_sent_as_bytes_give_the_same_bits(folder: Path) -> None:
    requests = [Request(prompt, 8, (5, 1), SEEN) for prompt in prompts(4, seed=4)]
    by_bytes = load_head(folder, pages=100, transport=ByBytes)
    assert run(by_bytes, requests).results[-1].tokens == run(load_head(folder, pages=100), requests).results[-1].tokens


class ByBytes:
    """Experts in this process, but reached as over a wire."""

    def __init__(self) -> None:
        self.replies: list[ExpertReply] = []

    def connect(self, replica: Replica) -> Replica:
        return replica

    def submit(self, calls: Sequence[ExpertCall]) -> None:
        for call in calls:
            expert: Expert = call.replica.endpoint
            reply = expert.forward(encode_call(call))
            h = decode_header(reply)
            answer = tensor_from(reply, HEADER_BYTES, h.rows, h.columns, h.dtype_code)
            self.replies.insert(0, ExpertReply(call.call_id, answer))

    def poll(self, timeout: float, call_ids: Collection[int], first: bool = False) -> list[ExpertReply]:
        replies, self.replies = self.replies, []
        return replies

    def abandon(self, call_ids: Collection[int]) -> None:
        pass

    def close(self) -> None:
        pass
