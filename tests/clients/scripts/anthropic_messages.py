"""anthropic: messages, whole and streamed, tools, counting, failures."""

import sys
from typing import Any

import anthropic

from tests.clients.checks import Target, check, holds, run, same

HELLO: Any = [{"role": "user", "content": "Where do the eight winds meet?"}]
SCHEMA = {
    "type": "object",
    "properties": {"place": {"enum": ["Ulm", "Rom"]}},
    "required": ["place"],
    "additionalProperties": False,
}
TOOLS: Any = [{"name": "weather", "description": "Sky.", "input_schema": SCHEMA}]

GREEDY = {"temperature": 0}  # which its newest release does not know


def client_of(target: Target) -> Any:
    return anthropic.Anthropic(base_url=f"http://{target.http}", api_key="none", max_retries=0)


@check
def a_message_is_answered_and_streamed(target: Target) -> None:
    client, wanted = (
        client_of(target),
        dict[str, Any](model=target.model, messages=HELLO, max_tokens=24, extra_body=GREEDY),
    )
    whole = client.messages.create(system="Be brief.", **wanted)
    same((whole.stop_reason, whole.usage.output_tokens, whole.role), ("max_tokens", 24, "assistant"))
    with client.messages.stream(system="Be brief.", **wanted) as stream:
        text = "".join(stream.text_stream)
        last = stream.get_final_message()
    same((text, last.stop_reason, last.usage.output_tokens), (whole.content[0].text, "max_tokens", 24))


@check
def a_demanded_tool_is_called_and_answered(target: Target) -> None:
    client = client_of(target)
    choice: Any = {"type": "tool", "name": "weather"}
    wanted = dict[str, Any](model=target.model, tools=TOOLS, tool_choice=choice, max_tokens=150, extra_body=GREEDY)
    answer = client.messages.create(messages=HELLO, **wanted)
    (call,) = answer.content
    same((answer.stop_reason, call.name), ("tool_use", "weather"))
    holds(call.input["place"] in ("Ulm", "Rom"), "the schema")
    with client.messages.stream(messages=HELLO, **wanted) as stream:
        same(stream.get_final_message().content[0].input, call.input)
    result: Any = [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]
    answered = [*HELLO, {"role": "assistant", "content": answer.content}, {"role": "user", "content": result}]
    again = client.messages.create(messages=answered, model=target.model, tools=TOOLS, max_tokens=8)
    holds(again.content, "the conversation goes on")


@check
def tokens_are_counted(target: Target) -> None:
    count = client_of(target).messages.count_tokens(model=target.model, messages=HELLO).input_tokens
    usage = client_of(target).messages.create(model=target.model, messages=HELLO, max_tokens=1).usage
    same(usage.input_tokens + usage.cache_read_input_tokens, count)


@check
def failures_are_its_own(target: Target) -> None:
    for wrong, kind in (
        ({"model": "nosuch"}, anthropic.NotFoundError),
        ({"extra_body": {"top_k": "a"}}, anthropic.BadRequestError),
    ):
        wanted = dict[str, Any](model=target.model, messages=HELLO, max_tokens=8) | wrong
        try:
            client_of(target).messages.create(**wanted)
        except kind:
            continue
        holds(False, f"{kind.__name__} was raised")


if __name__ == "__main__":
    sys.exit(run("anthropic"))
