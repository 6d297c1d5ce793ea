"""openai: streams."""

import asyncio
import sys
from typing import Any

from openai import AsyncOpenAI, OpenAI

from tests.clients.checks import Target, check, holds, run, same
from tests.clients.scripts.openai_answers import HELLO, TEXT, Weather, client_of


@check
def a_chat_comes_in_parts_which_make_the_whole(target: Target) -> None:
    client, wanted = client_of(target), dict(model=target.model, messages=HELLO, max_tokens=40, temperature=0)
    whole = client.chat.completions.create(**wanted)
    chunks = list(client.chat.completions.create(**wanted, stream=True))
    same(len({(chunk.id, chunk.created, chunk.object) for chunk in chunks}), 1)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    same([delta.role for delta in deltas], ["assistant"] + [None] * (len(deltas) - 1))
    same("".join(delta.content or "" for delta in deltas), whole.choices[0].message.content)
    same([chunk.choices[0].finish_reason for chunk in chunks], [None] * (len(chunks) - 1) + ["length"])
    holds(len(chunks) > 10, "it came in parts")


@check
def usage_comes_last_if_asked_for(target: Target) -> None:
    wanted = dict(model=target.model, messages=HELLO, max_tokens=10, temperature=0, stream=True)
    *chunks, last = client_of(target).chat.completions.create(**wanted, stream_options={"include_usage": True})
    same((last.choices, last.usage.completion_tokens), ([], 10))
    same({chunk.usage for chunk in chunks}, {None})
    always = {"include_usage": True, "continuous_usage_stats": True}
    running = client_of(target).chat.completions.create(**wanted, stream_options=always)
    counts = [chunk.usage.completion_tokens for chunk in running]
    same((counts, counts[-1]), (sorted(counts), 10))


@check
def several_choices_come_through_each_other(target: Target) -> None:
    client = client_of(target)
    wanted = dict(model=target.model, prompt=[TEXT, "Once upon"], max_tokens=12, n=2, seed=3, temperature=0.9)
    whole = client.completions.create(**wanted)
    texts, ended = ["", "", "", ""], []
    for chunk in client.completions.create(**wanted, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            ended += [choice.index] if choice.finish_reason else []
    same(texts, [choice.text for choice in whole.choices])
    same(sorted(ended), [0, 1, 2, 3])


@check
def the_helper_follows_a_stream(target: Target) -> None:
    client, wanted = client_of(target), dict(model=target.model, messages=HELLO, max_tokens=30, temperature=0)
    text = client.chat.completions.create(**wanted).choices[0].message.content
    stop = text[-4:]  # it takes an answer that was cut off for a failure
    with client.chat.completions.stream(**wanted, logprobs=True, stop=stop) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    holds({"chunk", "content.delta", "content.done", "logprobs.content.delta"} <= kinds, kinds)
    (choice,) = final.choices
    same((choice.message.role, choice.message.content), ("assistant", text.partition(stop)[0]))
    holds(len(choice.logprobs.content) >= 10, "a log-probability of each token")


@check
def the_helper_parses_a_stream(target: Target) -> None:
    with client_of(target).chat.completions.stream(
        model=target.model, messages=HELLO, response_format=Weather, seed=1, max_tokens=400
    ) as stream:
        partial = [event.parsed for event in stream if event.type == "content.delta" and event.parsed]
        final = stream.get_final_completion()
    holds(partial, "parts were parsed on the way")
    holds(isinstance(final.choices[0].message.parsed, Weather))


@check
async def sixteen_streams_at_once_are_those_one_by_one(target: Target) -> None:
    async def ask(client: Any, number: int) -> str:
        stream = await client.chat.completions.create(
            model=target.model,
            messages=[{"role": "user", "content": f"Tell me of number {number}."}],
            max_tokens=30,
            temperature=0.0 if number % 2 else 0.8,
            seed=number,
            stream=True,
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async with AsyncOpenAI(base_url=target.base, api_key="none", max_retries=0) as client:
        alone = [await ask(client, number) for number in range(16)]
        same(await asyncio.gather(*(ask(client, number) for number in range(16))), alone)


@check
def a_stream_that_is_left_does_not_hold_its_connection(target: Target) -> None:
    client = client_of(target)
    for _ in range(4):
        with client.chat.completions.create(model=target.model, messages=HELLO, max_tokens=1500, stream=True) as stream:
            holds(next(iter(stream)).choices)
    same(client.completions.create(model=target.model, prompt=TEXT, max_tokens=1).usage.completion_tokens, 1)


@check
def an_older_form_of_streams_reads_it_too(target: Target) -> None:
    client = OpenAI(base_url=target.base + "/", api_key="none", max_retries=0)
    with client.completions.with_streaming_response.create(
        model=target.model, prompt=TEXT, max_tokens=4, stream=True
    ) as response:
        lines = [line for line in response.iter_lines() if line]
    same((lines[-1], response.headers["content-type"].split(";")[0]), ("data: [DONE]", "text/event-stream"))


if __name__ == "__main__":
    sys.exit(run("openai"))
