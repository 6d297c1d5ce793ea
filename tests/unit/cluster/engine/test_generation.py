"""Requests between the event loop and the engine's thread."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from cluster.engine.engine import Engine, EngineStopped, QueueFull
from cluster.engine.events import Finish, FinishReason, Sampled
from cluster.engine.generation import Generation, GenerationFailed, GenerationRequest, Generations
from cluster.engine.served_model import ServedModel
from cluster.engine.text import StopRules
from cluster.policy.scheduling.sequence import SequenceRequest
from model.batch import NewSequence, SampledToken, SamplingParams
from tests.engines import engine_bounds, output_text, steps_of
from tests.fakes import PATIENCE, FakeHead, continuation, hashed, scripted

SEQUENCE = SequenceRequest((1, 5, 6, 7), SamplingParams(seed=3), 6)
REQUEST = GenerationRequest("id", SEQUENCE)

Start = Callable[..., tuple[Generations, Engine]]


def outputs(head: FakeHead, request: GenerationRequest) -> list[list[int]]:
    """The ids of each output when nothing disturbs it."""
    s = request.sequence
    sequences = [
        NewSequence(0, s.prompt_ids, len(s.prompt_ids), replace(s.sampling, output_index=i)) for i in range(request.n)
    ]
    return [continuation(head.sample, new, s.max_tokens) for new in sequences]


@pytest.fixture
async def start(head: FakeHead, demo: ServedModel) -> AsyncIterator[Start]:
    """Makes generations, and an engine, on the running loop."""
    engines: list[Engine] = []

    def start(
        max_running: int = 8, max_queued: int = 8, budget: int = 64, clock: Callable[[], float] = time.monotonic
    ) -> tuple[Generations, Engine]:
        generations = Generations(demo.tokenizer, asyncio.get_running_loop(), max_buffered=4096)
        engines.append(Engine(head, engine_bounds(max_running, budget, max_queued), generations.sink, clock))
        engines[-1].start()
        return generations, engines[-1]

    yield start
    head.let_go()
    for engine in engines:
        engine.stop()


async def collect(generation: Generation) -> dict[int, list[int]]:
    """Ids by output until all have ended."""
    ids: dict[int, list[int]] = {}
    async for pieces in generation.pieces():
        for index, piece in pieces:
            ids.setdefault(index, []).append(piece.token.token_id)
    return ids


async def freed(engine: Engine) -> None:
    """Wait until the engine has taken in what was aborted."""
    async with asyncio.timeout(PATIENCE):
        while engine.counters().running or engine.counters().waiting:
            await asyncio.sleep(0)
    engine.check()
    assert engine.counters().free_pages == engine.limits.page_count


@pytest.mark.parametrize("n", [1, 3])
async def test_every_output_has_tokens_of_its_own(n: int, start: Start, head: FakeHead) -> None:
    generations, engine = start()
    request = replace(REQUEST, n=n)
    with generations.running(request, engine) as generation:
        assert len(generation.open_ids) == n
        ids = await collect(generation)
        assert generation.open_ids == []
    assert [ids[i] for i in range(n)] == outputs(head, request)
    assert len({tuple(out) for out in ids.values()}) == n, "outputs differ by their index alone"
    assert generation.progress.completion_tokens == 6 * n
    await freed(engine)


async def test_requests_do_not_see_each_others_tokens(start: Start, head: FakeHead) -> None:
    generations, engine = start()
    requests = [replace(REQUEST, sequence=replace(SEQUENCE, prompt_ids=(1, i), max_tokens=3 + i)) for i in range(4)]

    async def run(request: GenerationRequest) -> list[int]:
        with generations.running(request, engine) as generation:
            return (await collect(generation))[0]

    assert await asyncio.gather(*map(run, requests)) == [outputs(head, r)[0] for r in requests]


async def test_tokens_that_gathered_come_together(start: Start, head: FakeHead) -> None:
    generations, engine = start()
    with generations.running(REQUEST, engine) as generation:
        while steps_of(engine) < 6:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        batches = [pieces async for pieces in generation.pieces()]
    assert len(batches) == 1 and len(batches[0]) == 6


async def test_a_stop_string_ends_one_output_in_the_engine_too(start: Start, head: FakeHead, demo: ServedModel) -> None:
    head.sample = hashed(demo.tokenizer.vocab_size)
    generations, engine = start()
    request = replace(REQUEST, sequence=replace(SEQUENCE, max_tokens=100), n=2)
    out = outputs(head, request)
    texts = [output_text(demo.tokenizer, ids) for ids in out]
    stop = next(texts[0][i : i + 3] for i in range(100) if texts[0][i : i + 3] not in texts[1])
    with generations.running(replace(request, rules=StopRules((stop,))), engine) as generation:
        finishes: dict[int, Finish] = {}
        texts_out = ["", ""]
        async for pieces in generation.pieces():
            for index, piece in pieces:
                texts_out[index] += piece.text
                finishes |= {index: piece.finish} if piece.finish else {}
    assert finishes == {0: Finish(FinishReason.STOP, stop=stop), 1: Finish(FinishReason.LENGTH)}
    assert texts_out == [texts[0][: texts[0].index(stop)], texts[1]]
    assert generation.progress.completion_tokens < 2 * 100, "what the engine sampled further does not count"
    await freed(engine)


async def test_leaving_early_frees_everything(start: Start, head: FakeHead) -> None:
    generations, engine = start(max_running=2)
    head.hold()
    head.let(2)
    with generations.running(replace(REQUEST, n=3), engine) as generation:
        async for _ in generation.pieces():
            break
        assert not await generations.drained(0)
    assert await generations.drained(0)
    head.let()  # the step that may be under way; a further one is never answered
    await freed(engine)


async def test_a_cancelled_task_frees_everything(start: Start, head: FakeHead) -> None:
    generations, engine = start()
    head.hold()

    async def run() -> None:
        with generations.running(REQUEST, engine) as generation:
            await collect(generation)

    task = asyncio.create_task(run())
    await asyncio.to_thread(head.wait_for_plan)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    head.let()  # the step that may be under way; a further one is never answered
    await freed(engine)
    generations.check()


async def test_a_stop_string_ends_the_sequence_in_the_engine(start: Start, head: FakeHead, demo: ServedModel) -> None:
    words = demo.tokenizer.encode("one two three four five", bos=False)
    head.sample = scripted(words * 10)
    generations, engine = start()
    head.hold()
    head.let(len(words))
    request = GenerationRequest("id", replace(SEQUENCE, max_tokens=50), StopRules(("three",)))
    with generations.running(request, engine) as generation:
        texts = [piece.text async for pieces in generation.pieces() for _, piece in pieces]
        head.let()  # the step that may be under way; a further one is never answered
        await freed(engine)
    assert "".join(texts).strip() == "one two"


async def test_a_refused_request_leaves_nothing_behind(start: Start, head: FakeHead) -> None:
    generations, engine = start(max_running=1, max_queued=1)
    head.hold()
    with generations.running(replace(REQUEST, n=3), engine) as generation:
        with pytest.raises(QueueFull), generations.running(REQUEST, engine):
            pass
        generations.check(generation)
    head.let_go()
    generations.check()
    assert await generations.drained(0)
    engine.stop()
    with pytest.raises(EngineStopped):
        generations.start([REQUEST], engine)
    generations.check()


async def test_several_requests_are_queued_together_or_not_at_all(start: Start, head: FakeHead) -> None:
    generations, engine = start(max_running=1, max_queued=1)
    head.hold()
    others = [replace(REQUEST, n=2), replace(REQUEST, request_id="b", sequence=replace(SEQUENCE, prompt_ids=(1, 9)))]
    with generations.all_running(others, engine) as started:
        with pytest.raises(QueueFull), generations.all_running(others, engine):
            pass
        generations.check(*started)
        head.let_go()
        assert [await collect(one) for one in started] == [dict(enumerate(outputs(head, one))) for one in others]
    generations.check()
    await freed(engine)


@pytest.mark.parametrize("kind", ["unavailable", "internal"])
async def test_one_failed_sequence_fails_the_request(kind: str, start: Start, head: FakeHead) -> None:
    generations, engine = start()
    head.outcomes.extend(["", kind])
    with pytest.raises(GenerationFailed) as failed, generations.running(replace(REQUEST, n=2), engine) as generation:
        await collect(generation)
    assert failed.value.kind == kind
    await freed(engine)


async def test_draining_waits_for_what_runs(start: Start, head: FakeHead) -> None:
    generations, engine = start()
    assert await generations.drained(0), "idle from the start, even without any grace"
    head.hold()
    (generation,) = generations.start([REQUEST], engine)
    draining = asyncio.create_task(generations.drained(PATIENCE))
    head.let_go()
    await collect(generation)
    assert not draining.done()
    generations._forget(generation)
    assert await draining


async def test_what_outlives_the_grace_is_cut_off(start: Start, head: FakeHead) -> None:
    generations, engine = start()
    head.hold()
    with pytest.raises(GenerationFailed) as failed, generations.running(replace(REQUEST, n=2), engine) as generation:
        assert not await generations.drained(0.001)
        generations.cut_off()
        await collect(generation)
    assert failed.value.kind == "stopped"
    head.let_go()
    await freed(engine)


async def test_progress_measures_times_routing_and_retries(start: Start, head: FakeHead) -> None:
    head.retries = 1
    generations, engine = start(budget=2)
    request = replace(REQUEST, sequence=replace(SEQUENCE, routing=True, max_tokens=3), n=2)
    with generations.running(request, engine) as generation:
        await collect(generation)
    p = generation.progress
    assert 0 <= p.queue_seconds <= p.first_token_seconds <= p.total_seconds
    ran = 4 + 1 + 2 * (3 - 1)  # the prompt, its last token again, and each output's tokens but the last
    assert p.routing == ((ran, ran, 0, 0), (0, 0, ran, ran))
    assert p.retries == engine.statistics.retries > 0, "two outputs share steps, which count once"


async def test_without_a_trace_there_is_no_routing(start: Start) -> None:
    generations, engine = start()
    with generations.running(REQUEST, engine) as generation:
        await collect(generation)
    assert generation.progress.routing == ()


async def test_late_tokens_of_an_ended_output_are_ignored(start: Start, head: FakeHead) -> None:
    generations, engine = start()
    with generations.running(REQUEST, engine) as generation:
        keys = generation.open_ids
        await collect(generation)
        generation.deliver(Sampled(keys[0], SampledToken(0, 5)))
        assert [pieces async for pieces in generation.pieces()] == []
    generations._deliver([Sampled(keys[0], SampledToken(0, 5)), Sampled("never heard of", SampledToken(0, 5))])
    assert generation.progress.completion_tokens == 6


async def test_times_are_those_of_the_engines_clock(start: Start, head: FakeHead) -> None:
    now = [1000.0]
    generations, engine = start(max_running=1, clock=lambda: now[0])
    head.hold()
    with generations.running(REQUEST, engine), generations.running(REQUEST, engine) as second:
        await asyncio.to_thread(head.wait_for_plan)
        now[0] = 1003.0
        head.let_go()
        await collect(second)
    p = second.progress
    assert (p.queue_seconds, p.first_token_seconds, p.total_seconds) == (3.0, 3.0, 3.0)
    assert (generations.stats.queue.sum, generations.stats.first_token.sum) == (3.0, 3.0), "the first is not read"


async def test_check_finds_what_is_left_behind(start: Start, head: FakeHead) -> None:
    generations, engine = start()
    head.hold()
    (generation,) = generations.start([REQUEST], engine)
    generations.check(generation)
    with pytest.raises(AssertionError):
        generations.check()


async def test_outputs_share_their_prompt_and_the_first_alone_scores_it(start: Start) -> None:
    generations, engine = start()
    request = GenerationRequest("id", replace(SEQUENCE, prompt_logprobs=2), n=3)
    with generations.running(request, engine) as generation:
        sequences = generation.sequences()
    assert [s.prompt_logprobs for s in sequences] == [2, -1, -1], "a scored prompt finds nothing in the cache"
    assert [s.sampling.output_index for s in sequences] == [0, 1, 2]
    assert {s.family for s in sequences} == {sequences[0].sequence_id}
    assert len({s.sequence_id for s in sequences}) == 3
