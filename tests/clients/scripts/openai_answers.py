"""openai: whole answers, of chats and of completions."""

import asyncio
import math
import sys
from typing import Literal

from openai import AsyncOpenAI, LengthFinishReasonError, OpenAI
from pydantic import BaseModel

from tests.clients.checks import Target, check, holds, raising, run, same

HELLO = [{"role": "user", "content": "Where do the eight winds meet?"}]
TEXT = "My favourite condiment is"


class Weather(BaseModel):
    """Bounded in every field, because random numbers do not end a text by themselves."""

    wind: Literal["north", "east", "south", "west"]
    warm: bool
    days: list[Literal["Monday", "Tuesday"]]


def client_of(target: Target) -> OpenAI:
    return OpenAI(base_url=target.base, api_key="none", max_retries=0, timeout=120)


@check
def the_model_is_listed(target: Target) -> None:
    client = client_of(target)
    (model,) = client.models.list().data
    same((model.id, model.object), (target.model, "model"))
    same(model.model_dump()["max_model_len"], 2048)
    same(client.models.retrieve(target.model).id, target.model)


@check
def a_chat_is_answered(target: Target) -> None:
    answer = client_of(target).chat.completions.create(
        model=target.model, messages=HELLO, max_completion_tokens=12, temperature=0
    )
    (choice,) = answer.choices
    same((answer.object, answer.model, choice.message.role), ("chat.completion", target.model, "assistant"))
    holds(choice.message.content, "it has a text")
    same((choice.finish_reason, answer.usage.completion_tokens), ("length", 12))
    same(answer.usage.total_tokens, answer.usage.prompt_tokens + 12)


@check
async def an_asynchronous_client_gets_the_same(target: Target) -> None:
    wanted = dict(model=target.model, messages=HELLO, max_tokens=24, temperature=0)
    whole = client_of(target).chat.completions.create(**wanted).choices[0].message.content
    async with AsyncOpenAI(base_url=target.base, api_key="none", max_retries=0) as client:
        answers = await asyncio.gather(*(client.chat.completions.create(**wanted) for _ in range(8)))
    same({answer.choices[0].message.content for answer in answers}, {whole})


@check
def prompts_may_be_texts_or_ids_one_or_several(target: Target) -> None:
    client = client_of(target)
    ids = client.post("/tokenize", body={"prompt": TEXT}, cast_to=dict)["tokens"]
    same(ids[0], 1)
    forms = (TEXT, [TEXT, TEXT], ids, [ids, ids, ids])
    answers = [client.completions.create(model=target.model, prompt=p, max_tokens=8, temperature=0) for p in forms]
    same([[choice.index for choice in answer.choices] for answer in answers], [[0], [0, 1], [0], [0, 1, 2]])
    same(len({choice.text for answer in answers for choice in answer.choices}), 1)
    same(answers[3].usage.completion_tokens, 24)


@check
def sixteen_tokens_are_a_completions_default(target: Target) -> None:
    answer = client_of(target).completions.create(model=target.model, prompt=TEXT, temperature=0, stop=None)
    same(answer.usage.completion_tokens, 16)


@check
def several_choices_differ_and_a_seed_brings_them_back(target: Target) -> None:
    def ask(seed: int) -> list[str]:
        answer = client_of(target).chat.completions.create(
            model=target.model, messages=HELLO, max_tokens=12, n=3, seed=seed, temperature=1.0
        )
        same([choice.index for choice in answer.choices], [0, 1, 2])
        return [choice.message.content for choice in answer.choices]

    first = ask(7)
    same(len(set(first)), 3)
    same(ask(7), first)
    holds(ask(8) != first, "another seed, other texts")


@check
def a_stop_string_ends_a_text_before_it(target: Target) -> None:
    client, wanted = client_of(target), dict(model=target.model, prompt=TEXT, max_tokens=24, temperature=0)
    text = client.completions.create(**wanted).choices[0].text
    stop = text[len(text) // 2 :][:3]
    (choice,) = client.completions.create(**wanted, stop=stop).choices
    same((choice.text, choice.finish_reason), (text.partition(stop)[0], "stop"))
    same(client.completions.create(**wanted, stop=["never said", stop]).choices[0].text, choice.text)
    with_it = client.completions.create(**wanted, stop=[stop], extra_body={"include_stop_str_in_output": True})
    same(with_it.choices[0].text, choice.text + stop)


@check
def a_bias_of_a_hundred_is_obeyed(target: Target) -> None:
    wanted = dict(model=target.model, prompt=TEXT, max_tokens=4, temperature=0)
    answer = client_of(target).completions.create(**wanted, logit_bias={"22557": 100}, logprobs=0)
    same(answer.choices[0].logprobs.tokens, [" Hello"] * 4)


@check
def log_probabilities_of_a_chat_are_those_of_its_tokens(target: Target) -> None:
    answer = client_of(target).chat.completions.create(
        model=target.model, messages=HELLO, max_tokens=10, temperature=0, logprobs=True, top_logprobs=5
    )
    (choice,) = answer.choices
    content = choice.logprobs.content
    same(len(content), 10)
    for token in content:
        best = token.top_logprobs[0]
        same((len(token.top_logprobs), best.token, best.logprob), (5, token.token, token.logprob))
        holds(sum(math.exp(one.logprob) for one in token.top_logprobs) <= 1.0001)
    said = b"".join(bytes(token.bytes) for token in content).decode(errors="replace")
    same(said.strip(), choice.message.content.strip())


@check
def an_echo_has_the_log_probabilities_of_its_prompt(target: Target) -> None:
    answer = client_of(target).completions.create(
        model=target.model, prompt=TEXT, max_tokens=3, temperature=0, logprobs=2, echo=True
    )
    (choice,) = answer.choices
    holds(choice.text.startswith(TEXT), choice.text)
    found = choice.logprobs
    same(len(found.token_logprobs), answer.usage.prompt_tokens + 3)
    same((found.token_logprobs[0], found.top_logprobs[0]), (None, None))
    holds(all(one < 0 for one in found.token_logprobs[1:]))
    same(found.text_offset, sorted(found.text_offset))


@check
def a_pydantic_model_is_parsed(target: Target) -> None:
    for seed in range(3):
        answer = client_of(target).chat.completions.parse(
            model=target.model, messages=HELLO, response_format=Weather, seed=seed, max_tokens=400
        )
        holds(isinstance(answer.choices[0].message.parsed, Weather))
        same(answer.choices[0].finish_reason, "stop")


@check
def an_answer_that_was_cut_off_is_not_parsed(target: Target) -> None:
    with raising(LengthFinishReasonError):
        client_of(target).chat.completions.parse(
            model=target.model, messages=HELLO, response_format=Weather, max_tokens=2
        )


@check
def system_messages_and_turns_in_a_row_are_taken(target: Target) -> None:
    spoken = [("developer", "Be brief."), ("user", "One."), ("user", "Two."), ("assistant", "Yes."), ("user", "Three.")]
    parts = [{"type": "text", "text": "Four."}, {"type": "text", "text": " Five."}]
    answer = client_of(target).chat.completions.create(
        model=target.model,
        messages=[{"role": r, "content": t} for r, t in spoken] + [{"role": "user", "content": parts}],
        max_tokens=4,
        user="somebody",
        metadata={"a": "b"},
        store=False,
    )
    same(answer.usage.completion_tokens, 4)


@check
def headers_tell_the_request_and_its_retries(target: Target) -> None:
    raw = client_of(target).completions.with_raw_response.create(
        model=target.model, prompt=TEXT, max_tokens=2, extra_headers={"x-request-id": "my-own-id"}
    )
    same((raw.headers["x-request-id"], raw.headers["x-eightwinds-retries"]), ("my-own-id", "0"))
    same(raw.parse().id, "cmpl-my-own-id")


if __name__ == "__main__":
    sys.exit(run("openai"))
