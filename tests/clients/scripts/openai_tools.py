"""openai: tools."""

import json
import sys
from typing import Any

import openai

from tests.clients.checks import Target, check, holds, run, same
from tests.clients.scripts.openai_answers import HELLO, client_of

SCHEMA = {
    "type": "object",
    "properties": {"place": {"enum": ["Ulm", "Rom"]}, "days": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["place", "days"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "description": "Sky.", "parameters": SCHEMA}}]
NAMED: Any = {"type": "function", "function": {"name": "weather"}}


@check
def a_demanded_call_fits_its_schema_and_is_answered(target: Target) -> None:
    client, wanted = client_of(target), dict[str, Any](model=target.model, tools=TOOLS, max_tokens=150, seed=1)
    # Random weights would call on and on.
    demanded: Any = {"tool_choice": "required", "parallel_tool_calls": False}
    choice = client.chat.completions.create(messages=HELLO, **demanded, **wanted).choices[0]
    same(choice.finish_reason, "tool_calls")
    call = choice.message.tool_calls[0]
    arguments = json.loads(call.function.arguments)
    holds(arguments["place"] in ("Ulm", "Rom") and 0 <= arguments["days"] <= 9, "the schema")
    answered = [*HELLO, choice.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    again = client.chat.completions.create(messages=answered, **(wanted | {"max_tokens": 8})).choices[0]
    holds(again.message.content or again.message.tool_calls, "the conversation goes on")


@check
def a_streamed_call_is_put_together(target: Target) -> None:
    wanted = dict[str, Any](model=target.model, messages=HELLO, tools=TOOLS, tool_choice=NAMED, max_tokens=150, seed=1)
    whole = client_of(target).chat.completions.create(**wanted).choices[0].message.tool_calls[0]
    with client_of(target).chat.completions.stream(**wanted) as stream:
        kinds = [event.type for event in stream]
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    holds("tool_calls.function.arguments.delta" in kinds, "arguments came in parts")
    same((call.function.name, call.function.arguments), (whole.function.name, whole.function.arguments))
    same((len(call.id), call.type), (9, "function"))


@check
def a_tool_that_there_is_not_is_refused(target: Target) -> None:
    other: Any = {"type": "function", "function": {"name": "other"}}
    try:
        client_of(target).chat.completions.create(model=target.model, messages=HELLO, tools=TOOLS, tool_choice=other)
    except openai.BadRequestError as error:
        same(error.param, "tool_choice")
        return
    holds(False, "it was refused")


if __name__ == "__main__":
    sys.exit(run("openai"))
