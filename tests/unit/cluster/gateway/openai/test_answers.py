"""Answers as OpenAI's clients read them: streams, log-probabilities, echo."""

from collections.abc import Callable

from cluster.engine.served_model import ServedModel
from tests.fakes import FakeHead
from tests.openai_door import ask, chat, complete
from tests.serving import Serving, serve_locally

ServeFake = Callable[..., Serving]


def test_a_chat_stream_is_as_clients_want_it(chatting: Serving) -> None:
    """F9, F12."""
    answered = chat(chatting, stream=True, stream_options={"include_usage": True})
    assert (answered.headers["cache-control"], answered.headers["x-accel-buffering"]) == ("no-cache", "no")
    first, *between, end, usage = answered.events
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(set(chunk["choices"][0]["delta"]) == {"content"} for chunk in between)
    assert (end["choices"][0]["delta"], end["choices"][0]["finish_reason"]) == ({}, "length")
    assert {c["choices"][0]["finish_reason"] for c in (first, *between)} == {None}
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 4)
    assert {c["usage"] is None for c in (first, *between, end)} == {True}
    for name in ("id", "created", "object", "model"):
        assert len({chunk[name] for chunk in answered.events}) == 1
    assert first["object"] == "chat.completion.chunk"
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in between)
    assert text == chat(chatting).json["choices"][0]["message"]["content"]


def test_usage_may_come_with_every_chunk(chatting: Serving) -> None:
    """F9."""
    events = chat(chatting, stream=True, stream_options={"continuous_usage_stats": True}).events
    assert [event["usage"]["completion_tokens"] for event in events][-1] == 4


def test_a_failure_in_a_stream_is_told_in_it(instruct: ServedModel, serve_fake: ServeFake) -> None:
    """F4."""
    head = FakeHead()
    server = serve_fake(head, instruct)
    head.outcomes.append("numeric")
    *_, last = chat(server, stream=True).events
    assert last["error"]["code"] == "numeric_fault"
    head.outcomes.append("numeric")
    assert chat(server).status == 500


def test_echo_scores_the_prompt_as_harnesses_count_it(serving: Serving) -> None:
    """F15: exactly prompt + 1 entries, the first null; the token's own number is the largest where it is greedy."""
    ids = ask(serving, "/tokenize", {"prompt": "My favourite condiment is"}).json["tokens"]
    (choice,) = complete(serving, prompt=[ids], echo=True, logprobs=1, max_tokens=1).json["choices"]
    lists = choice["logprobs"]
    assert {len(values) for values in lists.values()} == {len(ids) + 1}
    assert lists["token_logprobs"][0] is None and lists["top_logprobs"][0] is None
    assert lists["token_logprobs"][-1] == max(lists["top_logprobs"][-1].values()), "greedy"
    assert choice["text"].startswith("My favourite condiment is")
    events = complete(serving, prompt=[ids], echo=True, logprobs=1, max_tokens=1, stream=True).events
    assert events[0]["choices"][0]["logprobs"] == lists


def test_a_prompts_log_probabilities_are_as_vllm_has_them(serving: Serving) -> None:
    """F8: in each choice of completions; the same numbers as with echo."""
    ids = ask(serving, "/tokenize", {"prompt": "My favourite condiment is"}).json["tokens"]
    fields = {"prompt": [ids, [5, 6]], "prompt_logprobs": 2, "n": 2}
    choices = complete(serving, **fields).json["choices"]
    assert [len(choice["prompt_logprobs"]) for choice in choices] == [len(ids), len(ids), 2, 2]
    (none, *scores), likeliest = choices[0]["prompt_logprobs"], complete(serving, logprobs=1, echo=True, **fields).json
    assert none is None and likeliest["choices"][0]["prompt_logprobs"] == choices[0]["prompt_logprobs"]
    echoed = likeliest["choices"][0]["logprobs"]
    assert all(len(top) <= 2 for top in echoed["top_logprobs"][1:]), "echo has as many as logprobs says"
    for token, told, logprob in zip(ids[1:], scores, echoed["token_logprobs"][1:], strict=False):
        own = told[str(token)]
        assert own["logprob"] == logprob and 2 <= len(told) <= 3
        best = max(told.values(), key=lambda entry: entry["logprob"])
        assert best["rank"] == 1 and own["rank"] in ((1, 2) if len(told) == 2 else (None,))
    assert "prompt_logprobs" not in complete(serving).json["choices"][0]
    assert complete(serving, prompt_logprobs=1, stream=True).status == 400
    assert complete(serving, prompt_logprobs=0, stream=True).events
    assert complete(serving, prompt_logprobs=21).error["param"] == "prompt_logprobs"


def test_chat_log_probabilities_have_their_own_form(instruct: ServedModel) -> None:
    """F19, on a model that computes."""
    server = serve_locally(instruct, "kv.memory_bytes=1048576")
    try:
        answered = chat(server, prompt_logprobs=1).json
        assert len(answered["prompt_logprobs"]) == answered["usage"]["prompt_tokens"]
        assert answered["prompt_logprobs"][0] is None
        content = chat(server, logprobs=True, top_logprobs=2).json["choices"][0]["logprobs"]["content"]
        assert len(content) == 4
        for entry in content:
            assert set(entry) == {"token", "logprob", "bytes", "top_logprobs"} and len(entry["top_logprobs"]) == 2
            assert bytes(entry["bytes"]).decode(errors="replace") == entry["token"]
    finally:
        server.close()
