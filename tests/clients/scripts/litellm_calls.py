"""litellm: as `hosted_vllm` and as `openai`."""

import json
import sys

import litellm

from tests.clients.checks import Target, check, holds, raising, run, same

SPOKEN = [{"role": "system", "content": "You are the weather."}, {"role": "user", "content": "How is it?"}]
TEXT = "My favourite condiment is"
SCHEMA = {
    "type": "object",
    "properties": {"warm": {"type": "boolean"}},
    "required": ["warm"],
    "additionalProperties": False,
}
CHATS, TEXTS = ("hosted_vllm", "openai"), ("hosted_vllm", "text-completion-openai")


def fields(target: Target, provider: str, **more: object) -> dict[str, object]:
    usual = {"api_base": target.base, "api_key": "none", "temperature": 0, "max_tokens": 24, "num_retries": 0}
    return usual | {"model": f"{provider}/{target.model}"} | more


@check
def a_chat_is_answered_whatever_the_provider(target: Target) -> None:
    answers = [litellm.completion(messages=SPOKEN, **fields(target, provider)) for provider in CHATS]
    same(len({answer.choices[0].message.content for answer in answers}), 1)
    same({(a.usage.completion_tokens, a.choices[0].finish_reason) for a in answers}, {(24, "length")})


@check
def a_stream_is_the_same_text(target: Target) -> None:
    for provider in CHATS:
        whole = litellm.completion(messages=SPOKEN, **fields(target, provider)).choices[0].message.content
        wanted = fields(target, provider, stream=True, stream_options={"include_usage": True})
        chunks = list(litellm.completion(messages=SPOKEN, **wanted))
        same("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), whole)
        same([c.usage.completion_tokens for c in chunks if getattr(c, "usage", None)][-1], 24)
        rebuilt = litellm.stream_chunk_builder(chunks, messages=SPOKEN)
        same(rebuilt.choices[0].message.content, whole)


@check
async def an_asynchronous_call_gets_it_too(target: Target) -> None:
    whole = litellm.completion(messages=SPOKEN, **fields(target, CHATS[0])).choices[0].message.content
    answer = await litellm.acompletion(messages=SPOKEN, **fields(target, CHATS[0]))
    same(answer.choices[0].message.content, whole)


@check
def texts_are_completed(target: Target) -> None:
    answers = [litellm.text_completion(prompt=TEXT, **fields(target, provider)) for provider in TEXTS]
    same(len({answer.choices[0].text for answer in answers}), 1)


@check
def a_prompt_that_is_too_long_is_known_as_such(target: Target) -> None:
    long = [{"role": "user", "content": "wind " * 3000}]
    for provider in CHATS:
        with raising(litellm.ContextWindowExceededError):
            litellm.completion(messages=long, **fields(target, provider))


@check
def another_model_is_not_found(target: Target) -> None:
    with raising(litellm.NotFoundError):
        litellm.completion(messages=SPOKEN, **fields(target, "hosted_vllm", model="hosted_vllm/another"))


@check
def a_wrong_token_is_known_as_such(target: Target) -> None:
    with raising(litellm.AuthenticationError):
        wanted = fields(target, "hosted_vllm", api_base=f"http://{target.narrow}/v1", api_key="wrong")
        litellm.completion(messages=SPOKEN, **wanted)


@check
def a_schema_is_kept(target: Target) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA, "strict": True}}
    answer = litellm.completion(messages=SPOKEN, **fields(target, "hosted_vllm", response_format=form, max_tokens=60))
    holds(json.loads(answer.choices[0].message.content) in ({"warm": True}, {"warm": False}))


if __name__ == "__main__":
    sys.exit(run("litellm", "openai"))
