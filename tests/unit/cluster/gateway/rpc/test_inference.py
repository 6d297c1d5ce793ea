"""Text from the demo checkpoint over a real connection: unary and streamed, sampled, stopped and described."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from cluster.engine.served_model import DEMO_FOLDER
from model.batch import NewSequence
from model.reference import Reference
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.engines import output_text
from tests.fakes import PATIENCE, FakeHead
from tests.serving import Serving

TEXT = "My favourite condiment is"
LONG = "Once upon a time there was a small fox who lived near the river. " * 6  # several chunks, and over the window


def ask(text: str = TEXT, max_tokens: int = 20, **more: Any) -> pb.GenerateRequest:
    """A request; `greedy` by default, every other field by its section's name."""
    sampling = more.pop("sampling", {"temperature": 0})
    stopping = {"max_tokens": max_tokens, "ignore_eos": True} | more.pop("stopping", {})
    return pb.GenerateRequest(
        prompt=pb.Prompt(text=text),
        sampling=pb.Sampling(**sampling),
        stopping=pb.Stopping(**stopping),
        output=pb.OutputOptions(**({"token_ids": True} | more.pop("output", {}))),
        **more,
    )


SEEDED = {"temperature": 0.9, "top_p": 0.95, "seed": 42}


@pytest.fixture(autouse=True)
def nothing_is_held_afterwards(serving: Serving) -> Iterator[None]:
    yield
    serving.idle()


def joined(messages: list[pb.GenerateStreamResponse], n: int) -> list[pb.Output]:
    """The outputs that a stream adds up to."""
    outputs = [pb.Output(index=i) for i in range(n)]
    for message in messages:
        output = outputs[message.index]
        assert not output.HasField("finish"), "a message after the last one of its output"
        output.text += message.text
        output.token_ids.extend(message.token_ids)
        output.tokens.extend(message.tokens)
        if message.HasField("finish"):
            output.finish.CopyFrom(message.finish)
    return outputs


REQUESTS = {
    "greedy": ask(),
    "one token": ask(max_tokens=1),
    "seeded": ask(sampling=SEEDED),
    "several outputs": ask(sampling=SEEDED, n=4),
    "two greedy outputs": ask(n=2),
    "long": ask(LONG, 12),
    "filters": ask(sampling={"temperature": 1.2, "top_k": 20, "min_p": 0.05, "seed": 7}, n=2),
    "penalties": ask(sampling={"temperature": 0, "repetition_penalty": 1.3, "presence_penalty": 0.5}),
    "log-probabilities": ask(output={"logprobs": 3}, sampling=SEEDED, n=2),
    "special tokens": ask(output={"special_tokens": True}, sampling={"temperature": 0, "logit_bias": {2: 3.0}}),
    "bytes": ask(sampling={"temperature": 2, "seed": 1, "logit_bias": {i: 20 for i in range(3, 259)}}, n=3),
    "stops": ask(sampling=SEEDED, n=3, stopping={"stop": [" ", "."]}),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_streamed_pieces_joined_are_the_unary_answer(name: str, serving: Serving) -> None:
    request = REQUESTS[name]
    n = max(1, request.n)
    answer, messages = serving.client.generate(request), list(serving.client.stream(request))
    assert joined(messages, n) == list(answer.outputs)
    counts = [(u.prompt_tokens, u.completion_tokens) for u in (messages[-1].usage, answer.usage)]
    assert counts[0] == counts[1]
    assert all(o.HasField("finish") for o in answer.outputs)
    if "stop" in name:
        return
    ids = [list(o.token_ids) for o in answer.outputs]
    tokenizer, special = serving.served.tokenizer, request.output.special_tokens
    assert [o.text for o in answer.outputs] == [output_text(tokenizer, i, special) for i in ids]


def test_only_the_first_message_opens_and_only_the_last_sums_up(serving: Serving) -> None:
    request = ask(sampling=SEEDED, n=3, request_id="abc", output={"trace": True})
    messages = list(serving.client.stream(request))
    first, *rest = messages
    assert (first.request_id, first.model, first.seed) == ("abc", "demo", 42)
    assert first.create_time.seconds > 1_600_000_000
    for message in rest:
        assert not (message.request_id or message.model or message.seed or message.HasField("create_time"))
    *before, last = messages
    assert last.HasField("usage") and last.HasField("trace") and last.HasField("finish")
    assert not any(message.HasField("usage") or message.HasField("trace") for message in before)
    assert [sum(m.index == i and m.HasField("finish") for m in messages) for i in range(3)] == [1, 1, 1]


def test_usage_counts_prompt_and_output(serving: Serving) -> None:
    usage = serving.client.generate(ask(max_tokens=5, n=3)).usage
    ids = serving.served.tokenizer.encode(TEXT)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_prompt_tokens) == (len(ids), 15, 0)


def test_a_text_prompt_runs_the_ids_that_tokenize_gives(serving: Serving) -> None:
    ids = serving.client.stub.Tokenize(pb.TokenizeRequest(prompt=pb.Prompt(text=TEXT)))
    assert ids.context_length == 4096
    assert list(ids.token_ids) == serving.served.tokenizer.encode(TEXT)
    by_ids = ask()
    by_ids.prompt.token_ids.ids[:] = ids.token_ids
    assert serving.client.generate(by_ids).outputs == serving.client.generate(ask()).outputs


def test_a_seed_is_reported_and_gives_the_same_text_again(serving: Serving) -> None:
    free = ask(sampling={"temperature": 1.0})
    first, second = serving.client.generate(free), serving.client.generate(free)
    assert first.seed != second.seed
    free.sampling.seed = first.seed
    again = serving.client.generate(free)
    assert (again.seed, again.outputs) == (first.seed, first.outputs)
    streamed = list(serving.client.stream(free))
    assert streamed[0].seed == first.seed
    for seed in (0, -5, 2**63 - 1, -(2**63)):
        free.sampling.seed = seed
        assert serving.client.generate(free).seed == seed


def test_outputs_of_one_request_differ_and_do_not_depend_on_how_many_there_are(serving: Serving) -> None:
    four, two = (serving.client.generate(ask(sampling=SEEDED, n=n)).outputs for n in (4, 2))
    assert four[:2] == two[:]
    assert len({o.text for o in four}) == 4


@pytest.mark.parametrize("include", [False, True])
def test_a_stop_string_over_token_borders_ends_the_text(include: bool, serving: Serving) -> None:
    plain = serving.client.generate(ask()).outputs[0]
    pieces = [output_text(serving.served.tokenizer, [i]) for i in plain.token_ids]
    stop = plain.text[len(pieces[0]) - 1 : len("".join(pieces[:2])) + 1]  # touches three tokens
    assert plain.text.count(stop) >= 1 and len(stop) >= 3
    begin = plain.text.index(stop)
    stopped = serving.client.generate(ask(stopping={"stop": ["never this", stop], "include_stop": include}))
    output = stopped.outputs[0]
    assert output.text == plain.text[: begin + len(stop) * include]
    assert output.finish == pb.Finish(reason=pb.FINISH_REASON_STOP, stop=stop)
    assert stopped.usage.completion_tokens == len(output.token_ids) < 20
    assert list(output.token_ids) == plain.token_ids[: len(output.token_ids)]


@pytest.mark.parametrize("include", [False, True])
def test_a_stop_token_ends_the_output(include: bool, serving: Serving) -> None:
    plain = list(serving.client.generate(ask()).outputs[0].token_ids)
    last = next(i for i in range(3, 20) if plain[i] not in plain[:i])
    request = ask(stopping={"stop_token_ids": [plain[last], 0], "include_stop": include})
    output = serving.client.generate(request).outputs[0]
    assert list(output.token_ids) == plain[: last + 1]
    assert output.finish == pb.Finish(reason=pb.FINISH_REASON_STOP, stop_token_id=plain[last])
    shown = plain[: last + 1] if include else plain[:last]
    assert output.text == output_text(serving.served.tokenizer, shown)


def test_the_end_of_sequence_ends_an_output_unless_it_is_ignored(serving: Serving) -> None:
    wants_to_end = {"temperature": 0, "logit_bias": {2: 100.0}}
    ended = serving.client.generate(ask(sampling=wants_to_end, stopping={"ignore_eos": False})).outputs[0]
    assert (list(ended.token_ids), ended.text, ended.finish.stop_token_id) == ([2], "", 2)
    ignored = serving.client.generate(ask(sampling=wants_to_end, max_tokens=5)).outputs[0]
    assert list(ignored.token_ids) == [2] * 5
    assert ignored.finish == pb.Finish(reason=pb.FINISH_REASON_LENGTH)
    shown = ask(sampling=wants_to_end, max_tokens=2, output={"special_tokens": True})
    assert serving.client.generate(shown).outputs[0].text == "</s></s>"


def test_no_stop_comes_before_min_tokens(serving: Serving) -> None:
    plain = list(serving.client.generate(ask()).outputs[0].token_ids)
    request = ask(stopping={"stop_token_ids": plain[:2], "min_tokens": 6, "ignore_eos": False})
    output = serving.client.generate(request).outputs[0]
    assert len(output.token_ids) >= 6
    assert not set(output.token_ids[:6]) & {*plain[:2], 2}


def test_without_max_tokens_an_output_ends_by_itself_or_with_the_context(serving: Serving) -> None:
    filler = [5] * 4090
    request = pb.GenerateRequest(prompt=pb.Prompt(token_ids=pb.TokenIds(ids=filler)))
    request.stopping.ignore_eos = True
    request.sampling.temperature = 0
    answer = serving.client.generate(request)
    assert answer.usage.completion_tokens == 6
    assert answer.outputs[0].finish.reason == pb.FINISH_REASON_LENGTH


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 0.3, "seed": 5, "logit_bias": {100: 30.0}}])
@pytest.mark.parametrize("count", [0, 4, 20])
def test_log_probabilities_are_those_of_the_raw_logits(count: int, sampling: dict[str, Any], serving: Serving) -> None:
    output = serving.client.generate(ask(max_tokens=8, sampling=sampling, output={"logprobs": count})).outputs[0]
    prompt, ids = serving.served.tokenizer.encode(TEXT), list(output.token_ids)
    expected = Reference(DEMO_FOLDER).logits([*prompt, *ids])[len(prompt) - 1 : -1].log_softmax(-1)
    assert [token.id for token in output.tokens] == ids
    assert b"".join(token.bytes for token in output.tokens).decode() == output.text
    for token, row in zip(output.tokens, expected, strict=True):
        assert token.logprob == pytest.approx(row[token.id].item(), abs=1e-3)
        best = torch.topk(row, count)
        assert [top.logprob for top in token.top] == pytest.approx(best.values.tolist(), abs=1e-3)
        for top in token.top:
            assert top.logprob == pytest.approx(row[top.id].item(), abs=1e-3)
            assert top.bytes == serving.served.tokenizer.token_bytes(top.id, special_tokens=True)
        assert sorted((top.logprob for top in token.top), reverse=True) == [top.logprob for top in token.top]


def test_without_being_asked_for_ids_and_log_probabilities_stay_away(serving: Serving) -> None:
    answer = serving.client.generate(ask(output={"token_ids": False}))
    assert answer.outputs[0].text and not answer.outputs[0].token_ids and not answer.outputs[0].tokens
    assert not answer.HasField("trace")


@pytest.mark.parametrize("text", [TEXT, LONG], ids=["one chunk", "several chunks"])
def test_a_trace_counts_every_token_of_every_layer_twice(text: str, serving: Serving) -> None:
    answer = serving.client.generate(ask(text, max_tokens=7, n=2, output={"trace": True}))
    layers = serving.served.checkpoint.config.num_hidden_layers
    assert [r.layer for r in answer.trace.routing] == list(range(layers))
    usage = answer.usage
    ran = usage.prompt_tokens - usage.cached_prompt_tokens + 1  # the second output runs only the prompt's last token
    ran += 2 * (7 - 1)  # the last token of an output is not run
    assert {sum(r.expert_tokens) for r in answer.trace.routing} == {2 * ran}
    assert {len(r.expert_tokens) for r in answer.trace.routing} == {8}
    times = (answer.trace.queue_time, answer.trace.time_to_first_token, answer.trace.total_time)
    seconds = [t.ToNanoseconds() for t in times]
    assert 0 <= seconds[0] < seconds[1] < seconds[2] < 60e9
    assert answer.trace.retries == 0
    again = ask(text, max_tokens=7, n=2, output={"trace": True})  # now with the prompt in the cache
    streamed = list(serving.client.stream(again))[-1]
    assert streamed.trace.routing == serving.client.generate(again).trace.routing


def test_the_request_id_comes_back_in_body_and_metadata(serving: Serving) -> None:
    stub, metadata = serving.client.stub, (("x-request-id", "from-metadata"),)
    for request_id, expected in (("", "from-metadata"), ("from-body", "from-body")):
        answer, call = stub.Generate.with_call(ask(max_tokens=1, request_id=request_id), metadata=metadata)
        assert answer.request_id == expected == dict(call.initial_metadata())["x-request-id"]
        stream = stub.GenerateStream(ask(max_tokens=1, request_id=request_id), metadata=metadata)
        assert next(stream).request_id == expected == dict(stream.initial_metadata())["x-request-id"]
        list(stream)
    made, call = stub.Generate.with_call(ask(max_tokens=1))
    assert len(made.request_id) >= 16 and dict(call.initial_metadata())["x-request-id"] == made.request_id
    _, call = stub.ListModels.with_call(pb.ListModelsRequest(), metadata=metadata)
    assert dict(call.initial_metadata())["x-request-id"] == "from-metadata"


def test_tokens_that_gathered_share_a_message_and_the_sum_still_comes_last(
    serve_fake: Callable[..., Serving],
) -> None:
    eos, blocked, free = 2, threading.Event(), threading.Event()

    def sample(new: NewSequence, token_ids: list[int]) -> int:
        sampled = len(token_ids) - new.prompt_length
        return eos if new.sampling.output_index == 1 and sampled == 1 else 300 + sampled

    async def block() -> None:
        blocked.set()
        free.wait(PATIENCE)

    head = FakeHead(sample=sample)
    server = serve_fake(head)
    head.hold()
    request = ask(max_tokens=4, n=2, stopping={"ignore_eos": False})
    with ThreadPoolExecutor() as pool:
        messages = pool.submit(lambda: list(server.client.stream(request)))
        head.wait_for_plan()
        blocking = pool.submit(lambda: server.run(block()))
        assert blocked.wait(PATIENCE)
        head.let_go()
        server.idle()  # all is sampled, and the gateway has seen nothing of it
        free.set()
        blocking.result(PATIENCE)
    got = messages.result(PATIENCE)
    assert [(m.index, list(m.token_ids)) for m in got] == [(0, [300, 301, 302, 303]), (1, [300, eos])]
    assert [m.HasField("usage") for m in got] == [False, True]
    assert got[-1].usage.completion_tokens == 6
