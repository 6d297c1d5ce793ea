"""langchain-openai: ChatOpenAI and OpenAI."""

import asyncio
import sys
from typing import Literal

from langchain_core.messages import ToolMessage
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

from tests.clients.checks import Target, check, holds, run, same

SPOKEN = [("system", "You are the weather."), ("human", "Where do the eight winds meet?")]


class Weather(BaseModel):
    """The weather of a day."""

    wind: Literal["north", "east", "south", "west"]
    warm: bool


def chat_of(target: Target, **fields: object) -> ChatOpenAI:
    wanted = {"temperature": 0, "max_tokens": 24, "max_retries": 0} | fields
    return ChatOpenAI(base_url=target.base, api_key="none", model=target.model, **wanted)


@check
def a_chat_is_answered(target: Target) -> None:
    answer = chat_of(target).invoke(SPOKEN)
    holds(answer.content, "it has a text")
    same(answer.response_metadata["finish_reason"], "length")
    same(answer.usage_metadata["output_tokens"], 24)
    same(answer.response_metadata["model_name"], target.model)


@check
def a_stream_is_the_same_text(target: Target) -> None:
    chunks = list(chat_of(target, stream_usage=True).stream(SPOKEN))
    same("".join(chunk.content for chunk in chunks), chat_of(target).invoke(SPOKEN).content)
    usage = [chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata]
    same((usage, len(chunks) > 8), ([24], True))


@check
async def asynchronous_calls_get_it_too(target: Target) -> None:
    whole = chat_of(target).invoke(SPOKEN).content
    answers = await asyncio.gather(*(chat_of(target).ainvoke(SPOKEN) for _ in range(4)))
    same({answer.content for answer in answers}, {whole})
    same("".join([chunk.content async for chunk in chat_of(target).astream(SPOKEN)]), whole)


@check
def a_batch_is_each_by_itself(target: Target) -> None:
    texts = ["One wind.", "Two winds.", "Three winds."]
    together = [answer.content for answer in chat_of(target).batch(texts)]
    same(together, [chat_of(target).invoke(text).content for text in texts])


@check
def structured_output_is_an_object_of_the_class(target: Target) -> None:
    chat = chat_of(target, max_tokens=200, temperature=1.0, seed=5)
    for method in ("default", "json_schema"):
        structured = chat.with_structured_output(Weather, **({} if method == "default" else {"method": method}))
        holds(isinstance(structured.invoke(SPOKEN), Weather), method)
    holds(isinstance(list(chat.with_structured_output(Weather).stream(SPOKEN))[-1], Weather))


@check
def a_bound_tool_is_called_and_answered(target: Target) -> None:
    chat = chat_of(target, max_tokens=150, temperature=1.0, seed=5)
    forced = chat.bind_tools([Weather], tool_choice="Weather", strict=True)
    answer = forced.invoke(SPOKEN)
    (call,) = answer.tool_calls
    same((call["name"], answer.invalid_tool_calls), ("Weather", []))
    holds(Weather(**call["args"]), "the schema")
    streamed = sum(list(forced.stream(SPOKEN))[1:], next(forced.stream(SPOKEN)))
    same([one["args"] for one in streamed.tool_calls], [call["args"]])
    answered = [*SPOKEN, answer, ToolMessage("calm", tool_call_id=call["id"])]
    again = chat.bind_tools([Weather], tool_choice="none").invoke(answered)
    holds(again.content, "the conversation goes on")


@check
def structured_output_comes_of_a_call_too(target: Target) -> None:
    chat = chat_of(target, max_tokens=200, temperature=1.0, seed=5)
    holds(
        isinstance(chat.with_structured_output(Weather, method="function_calling", strict=True).invoke(SPOKEN), Weather)
    )


@check
def stop_and_log_probabilities_pass(target: Target) -> None:
    text = chat_of(target).invoke(SPOKEN).content
    stop = text[-4:]
    same(chat_of(target).invoke(SPOKEN, stop=[stop]).content, text.partition(stop)[0])
    content = chat_of(target, logprobs=True, top_logprobs=2).invoke(SPOKEN).response_metadata["logprobs"]["content"]
    same([len(token["top_logprobs"]) for token in content], [2] * 24)


@check
def completions_are_answered(target: Target) -> None:
    model = OpenAI(base_url=target.base, api_key="none", model=target.model, temperature=0, max_tokens=12)
    whole = model.invoke("My favourite condiment is")
    holds(whole)
    same("".join(model.stream("My favourite condiment is")), whole)


if __name__ == "__main__":
    sys.exit(run("langchain-openai", "langchain-core", "openai"))
