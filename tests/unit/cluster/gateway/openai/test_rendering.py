"""JSON in pieces."""

import json
import threading
from typing import Any

import pytest

from cluster.gateway.openai import rendering
from cluster.gateway.openai.rendering import beside, rendered
from tests.openai_door import chat
from tests.serving import Serving

VALUES = [
    None,
    {},
    [],
    {"a": [], "b": {}, "\u2028": "\u00e9\n"},
    {"choices": [{"index": i, "logprobs": {"content": [{"token": str(n)} for n in range(i)]}} for i in range(200)]},
    {"tokens": list(range(129)), "prompt_logprobs": [None, *({str(n): {"logprob": -1.5}} for n in range(100))]},
    [{"a": [[1, 2], [3]]}] * 3,
]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("ascii_only", [False, True])
def test_it_is_the_same_json(value: Any, ascii_only: bool) -> None:
    text = rendered(value, ascii_only)
    assert json.loads(text) == value
    assert text == json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"))


def test_what_json_has_no_number_for_is_refused() -> None:
    with pytest.raises(ValueError):
        rendered({"logprob": float("-inf")})


async def test_long_work_is_done_in_another_thread() -> None:
    """F11: others' streams go on meanwhile."""
    assert await beside(100, threading.get_ident) == threading.get_ident() != await beside(100_000, threading.get_ident)


def test_a_long_answer_is_the_same(chatting: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers() -> tuple[Any, str]:
        deltas = [event["choices"][0]["delta"] for event in chat(chatting, stream=True).events]
        return chat(chatting).json["choices"], "".join(delta.get("content", "") for delta in deltas)

    before = answers()
    monkeypatch.setattr(rendering, "_SHORT", 0)
    assert answers() == before
