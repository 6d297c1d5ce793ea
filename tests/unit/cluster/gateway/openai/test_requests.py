"""Bodies of OpenAI requests: their fields, the forms of prompts and messages, and what is refused by its name."""

import json
from typing import Any

import pytest

from cluster.engine.served_model import ServedModel
from cluster.gateway.openai import body
from cluster.gateway.openai.requests import chat_wanted
from tests.engines import engine_bounds
from tests.fakes import FakeHead
from tests.openai_door import COMPLETIONS, HELLO, ask, chat, complete
from tests.serving import Serving

BAD_SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": 7}}}


def test_too_long_a_prompt_is_told_in_the_words_that_clients_look_for(chatting: Serving) -> None:
    """F5."""
    answered = chat(chatting, max_tokens=10_000)
    assert (answered.status, answered.error["code"]) == (400, "context_length_exceeded")
    assert answered.error["message"].startswith("This model's maximum context length is 256 tokens. However, you requ")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 9}, "n"),
        ({"n": 1 << 40}, "n"),
        ({"seed": 1 << 70}, "seed"),
        ({"stop": [1]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"7": 10**400}}, "logit_bias"),
        ({"logit_bias": {"40000": 1}}, "logit_bias"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "poet", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": [], "content": "a"}]}, "messages[0].role"),
        ({"messages": [{}] * 4097}, "messages"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"chat_template": "{{ 7 }}"}, "chat_template"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": BAD_SCHEMA, "ignore_eos": False}, "response_format"),
        ({"stream": 1}, "stream"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str, chatting: Serving) -> None:
    """F7, F8, F13, F20, F21."""
    answered = chat(chatting, **fields)
    assert (answered.status, answered.error["param"]) == (400, param), answered.raw
    assert param in answered.error["message"]


HALF_A_PAIR = [b'{"prompt": "\\ud800"}', b'{"prompt": "\xed\xa0\x80"}', "{}".encode("utf-16")]


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'"x"', *HALF_A_PAIR])
def test_rubbish_is_a_bad_request(raw: bytes, serving: Serving) -> None:
    """F4."""
    answered = ask(serving, COMPLETIONS, raw)
    assert (answered.status, answered.error["code"]) == (400, "malformed_body")


def test_a_body_that_is_too_long_is_refused(serving: Serving) -> None:
    answered = ask(serving, COMPLETIONS, b" " * ((1 << 20) + 1))
    assert (answered.status, answered.error["code"]) == (413, "message_too_large")


def test_long_bodies_are_read_in_another_process(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """F11: parsing keeps the interpreter's lock, and no stream would move."""
    long = "a " * 50_000
    monkeypatch.setattr(body, "json", None)
    answered = complete(serving, prompt=long)
    assert (answered.status, answered.error["code"]) == (400, "context_length_exceeded")
    assert ask(serving, "/tokenize", {"prompt": long, "model": "other"}).status == 404
    whole = ask(serving, "/tokenize", {"prompt": long, "return_token_strs": True}).json
    assert whole["count"] == len(whole["tokens"]) == len(whole["token_strs"]) > 50_000
    assert ask(serving, "/detokenize", {"tokens": whole["tokens"][1:]}).json["prompt"] == long
    assert complete(serving).status == 500, "short ones are read here"


def test_a_body_of_very_many_objects_is_refused(serving: Serving) -> None:
    answered = ask(serving, COMPLETIONS, b'{"prompt":[' + b"[]," * 100_000 + b"[]]}")
    assert (answered.status, answered.error["code"]) == (413, "message_too_large")


def test_more_log_probabilities_than_an_answer_holds_are_refused(serving: Serving) -> None:
    answered = complete(serving, prompt=["a"] * 16, n=8, logprobs=20, max_tokens=500)
    assert (answered.status, answered.error["param"]) == (400, "logprobs")


def test_null_and_unknown_fields_are_nothing(serving: Serving) -> None:
    """F7, F8."""
    fields = dict.fromkeys(("logprobs", "stop", "n", "seed", "stream_options", "logit_bias", "suffix", "best_of"))
    odd = {"store": True, "metadata": {"a": "b"}, "service_tier": "auto", "no_such_field": [1]}
    plain, other = complete(serving).json["choices"], complete(serving, **fields, **odd).json["choices"]
    assert plain == other


def test_unknown_fields_are_said_once(instruct: ServedModel, caplog: pytest.LogCaptureFixture) -> None:
    """F7."""
    server = Serving(instruct).ready(FakeHead(), engine_bounds())
    try:
        for _ in range(3):
            assert chat(server, no_such_field=[1], store=True, n=None, other=None, user="a").status == 200
    finally:
        server.close()
    (line,) = [record.getMessage() for record in caplog.records if record.name == "eightwinds.openai"]
    assert "('no_such_field',)" in line


def test_a_user_is_never_a_reason_to_fail(chatting: Serving) -> None:
    """F7."""
    for user in (7, {"id": 1}, "a" * 10_000):
        assert chat(chatting, user=user).status == 200
    names = [chat_wanted({"messages": HELLO, "user": "a" * 300 + end}, "").requests[0].user for end in "bb7"]
    assert names[0] == names[1] != names[2] and max(map(len, names)) <= 256


def test_the_newer_name_of_max_tokens_wins(chatting: Serving) -> None:
    """F7."""
    usage = chat(chatting, max_tokens=9, max_completion_tokens=3).json["usage"]
    assert usage["completion_tokens"] == 3
    body = {"prompt": "a", "ignore_eos": True}
    assert ask(chatting, COMPLETIONS, body).json["usage"]["completion_tokens"] == 16


def test_parts_are_joined_and_roles_folded(chatting: Serving) -> None:
    """F13, F14."""
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    assert (
        chat(chatting, messages=[{"role": "user", "content": parts}]).json["choices"] == chat(chatting).json["choices"]
    )
    turns = [
        ("developer", "be brief"),
        ("user", "a"),
        ("user", "b"),
        ("assistant", None),
        ("tool", "c"),
        ("system", "d"),
    ]
    messages = [{"role": role, "content": content, "name": "x"} for role, content in turns]
    assert chat(chatting, messages=messages).status == 200


def test_prompts_come_in_four_forms_and_choices_in_their_order(serving: Serving) -> None:
    """F15."""
    ids = ask(serving, "/tokenize", {"prompt": "My favourite"}).json["tokens"]
    one = complete(serving).json["choices"][0]["text"]
    for prompt, count in (("My favourite", 1), (ids, 1), (["My favourite", "It is"], 2), ([ids, [5, 6]], 2)):
        choices = complete(serving, prompt=prompt, n=2).json["choices"]
        assert [choice["index"] for choice in choices] == list(range(2 * count))
        assert choices[0]["text"] == choices[1]["text"] == one
    odd: tuple[Any, ...] = ([], None, 0, False, {}, 7, [["a"]], [[]], {"a": 1}, [[-1]], [[1 << 40]], ["a"] * 129)
    for prompt in odd:
        answered = complete(serving, prompt=prompt)
        assert (answered.status, answered.error["param"]) == (400, "prompt"), prompt
    assert complete(serving, prompt=["a", [5]]).status == 200


def test_answers_keep_to_a_schema(serving: Serving) -> None:
    """F20."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    (choice,) = complete(serving, response_format=wanted, max_tokens=60).json["choices"]
    assert choice["finish_reason"] == "stop" and isinstance(json.loads(choice["text"])["a"], bool)
