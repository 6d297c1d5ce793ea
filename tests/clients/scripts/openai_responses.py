"""openai: responses, whole and streamed, tools, an object of a class."""

import json
import sys
from typing import Any, Literal

from pydantic import BaseModel

from tests.clients.checks import Target, check, holds, run, same
from tests.clients.scripts.openai_answers import client_of

ASKED = "Where do the eight winds meet?"
SCHEMA = {
    "type": "object",
    "properties": {"place": {"enum": ["Ulm", "Rom"]}},
    "required": ["place"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "name": "weather", "description": "Sky.", "parameters": SCHEMA, "strict": True}]


class Wind(BaseModel):
    """A wind."""

    model_config = {"extra": "forbid"}
    quarter: Literal["north", "south"]


@check
def a_response_is_answered_and_streamed(target: Target) -> None:
    wanted = dict[str, Any](model=target.model, input=ASKED, max_output_tokens=24, temperature=0)
    whole = client_of(target).responses.create(**wanted)
    same((whole.status, whole.incomplete_details.reason), ("incomplete", "max_output_tokens"))
    same(whole.usage.output_tokens, 24)
    with client_of(target).responses.stream(**wanted) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    same(text, whole.output_text)


@check
def a_demanded_tool_is_called_and_answered(target: Target) -> None:
    client, choice = client_of(target), dict[str, Any](type="function", name="weather")
    wanted = dict[str, Any](model=target.model, tools=TOOLS, max_output_tokens=150, temperature=0)
    answer = client.responses.create(input=ASKED, tool_choice=choice, **wanted)
    (call,) = answer.output
    holds(json.loads(call.arguments)["place"] in ("Ulm", "Rom"), "the schema")
    with client.responses.stream(input=ASKED, tool_choice=choice, **wanted) as stream:
        for _ in stream:
            pass
        same(stream.get_final_response().output[0].arguments, call.arguments)
    items: Any = [{"role": "user", "content": ASKED}, *answer.output]
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
    again = client.responses.create(input=items, **(wanted | {"max_output_tokens": 8}))
    holds(again.output, "the conversation goes on")


@check
def an_answer_is_an_object_of_a_class(target: Target) -> None:
    parsed = client_of(target).responses.parse(
        model=target.model, input=ASKED, text_format=Wind, max_output_tokens=200, temperature=0
    )
    holds(isinstance(parsed.output_parsed, Wind), "the class")


if __name__ == "__main__":
    sys.exit(run("openai"))
