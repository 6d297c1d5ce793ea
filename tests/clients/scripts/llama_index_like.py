"""llama-index: OpenAILike, for completions, as it is unless told, and for chats."""

import sys
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

from tests.clients.checks import Target, check, holds, run, same

TEXT = "My favourite condiment is"
SPOKEN = [ChatMessage(role="system", content="You are the weather."), ChatMessage(role="user", content="How is it?")]


def model_of(target: Target, **fields: Any) -> OpenAILike:
    wanted = {"temperature": 0.0, "max_tokens": 24, "context_window": 2048, "max_retries": 0} | fields
    return OpenAILike(model=target.model, api_base=target.base, api_key="none", **wanted)


@check
def a_text_is_completed(target: Target) -> None:
    whole = model_of(target).complete(TEXT).text
    holds(whole)
    parts = list(model_of(target).stream_complete(TEXT))
    same((parts[-1].text, len(parts) > 8), (whole, True))


@check
def a_chat_is_answered(target: Target) -> None:
    model = model_of(target, is_chat_model=True)
    whole = model.chat(SPOKEN).message.content
    holds(whole)
    parts = list(model.stream_chat(SPOKEN))
    same((parts[-1].message.content, "".join(part.delta or "" for part in parts)), (whole, whole))


@check
async def asynchronous_calls_get_it_too(target: Target) -> None:
    model = model_of(target, is_chat_model=True)
    same((await model.achat(SPOKEN)).message.content, model.chat(SPOKEN).message.content)
    same((await model_of(target).acomplete(TEXT)).text, model_of(target).complete(TEXT).text)


@check
def a_completion_has_log_probabilities(target: Target) -> None:
    answer = model_of(target, logprobs=True, top_logprobs=3).complete(TEXT)
    same(len(answer.logprobs), 24)


if __name__ == "__main__":
    sys.exit(run("llama-index-llms-openai-like", "llama-index-core", "openai"))
