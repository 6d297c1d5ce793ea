"""200 mixed requests that arrive at random get what each gets alone, with the real model, and greedy ones what
transformers puts out.
"""

import random
from collections.abc import Iterator

import pytest

from cluster.engine.served_model import ServedModel
from cluster.policy.scheduling.fair_queue import FairQueue
from cluster.policy.scheduling.sequence import Sequence
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.mixed import Answer, ask, ask_all, some_request
from tests.oracle import Oracle
from tests.serving import Serving, serve_locally

COUNT = 200


@pytest.fixture(scope="module")
def crowded(demo: ServedModel) -> Iterator[Serving]:
    """fp32. Steps and KV cache are so small that prompts are cut into chunks and sequences preempted."""
    memory = 20 * 98_304  # 20 pages
    serving = serve_locally(
        demo,
        "model.dtype=float32",
        f"kv.memory_bytes={memory}",
        "scheduler.max_tokens_per_step=64",
        "scheduler.max_running_requests=24",
        "gateway.max_queued_requests=2000",
    )
    yield serving
    serving.close()


@pytest.fixture(scope="module")
def requests() -> list[pb.GenerateRequest]:
    rng = random.Random(2026)
    return [some_request(rng) for _ in range(COUNT)]


@pytest.fixture(scope="module")
def alone(crowded: Serving, requests: list[pb.GenerateRequest]) -> list[Answer]:
    return [ask(crowded.client, request) for request in requests]


def test_mixed_requests_get_what_each_gets_alone(
    crowded: Serving, requests: list[pb.GenerateRequest], alone: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    preempted: list[str] = []
    resume = FairQueue.resume

    def spied(queue: FairQueue, sequence: Sequence) -> None:
        preempted.append(sequence.id)
        resume(queue, sequence)

    monkeypatch.setattr(FairQueue, "resume", spied)
    answers = ask_all(crowded.client, requests, 7)
    assert [i for i in range(COUNT) if answers[i] != alone[i]] == []
    assert preempted, "the cache is too large for this test"
    crowded.idle()


def test_greedy_ones_get_what_transformers_puts_out(
    demo: ServedModel, requests: list[pb.GenerateRequest], alone: list[Answer]
) -> None:
    oracle, compared = Oracle(demo.checkpoint.folder), 0
    for request, answer in zip(requests, alone, strict=True):
        s, stopping = request.sampling, request.stopping
        if s.temperature > 0 or s.HasField("presence_penalty") or stopping.stop:
            continue
        ids = demo.tokenizer.encode(request.prompt.text)
        wanted = oracle.greedy(ids, stopping.max_tokens, ignore_eos=stopping.ignore_eos)
        assert all(token_ids == wanted for _, token_ids, _, _ in answer)
        compared += 1
    assert compared >= 30
