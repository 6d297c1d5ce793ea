"""lm-eval: `local-completions`, with the server as its tokenizer, held to what transformers say."""

import json
import sys
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

from tests.clients.checks import Target, check, holds, run, same

TOLERANCE = 1e-3


def model_of(target: Target, batch: int = 8, **fields: Any) -> LocalCompletionsAPI:
    wanted = {"model": target.model, "batch_size": batch, "num_concurrent": 4, "max_retries": 1} | fields
    return LocalCompletionsAPI(base_url=f"{target.base}/completions", **wanted)


def expected(target: Target) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(target.folder) / "expected.json").read_text())
    return found


def asked(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(kind, {}, given, number) for number, given in enumerate(arguments)]


@check
def log_likelihoods_are_those_of_transformers(target: Target) -> None:
    items = expected(target)["scored"]
    same(len(items), 200)
    for batch in (1, 8):
        model = model_of(target, batch)
        same(model.tokenizer_backend, "remote")
        found = model.loglikelihood(asked("loglikelihood", *((i["context"], i["continuation"]) for i in items)))
        worst = max(abs(total - item["logprob"]) for (total, _), item in zip(found, items, strict=True))
        holds(worst < TOLERANCE, f"they differ by {worst}")
        same([greedy for _, greedy in found], [item["greedy"] for item in items])


@check
def a_text_without_a_context_begins_with_the_models_first_token(target: Target) -> None:
    item, model = expected(target)["first"], model_of(target)
    same((model.prefix_token_id, model.eot_token_id), (1, 2))
    ((total, _),) = model.loglikelihood(asked("loglikelihood", ("", item["continuation"])))
    holds(abs(total - item["logprob"]) < TOLERANCE, f"{total} is not {item['logprob']}")


@check
def rolling_log_likelihoods_are_sums(target: Target) -> None:
    model, text = model_of(target, custom_prefix_token_id=1), " ".join(f"wind {number}" for number in range(400))
    (total,) = model.loglikelihood_rolling(asked("loglikelihood_rolling", (text,)))
    holds(total < -1000, total)


@check
def generated_texts_are_those_of_transformers(target: Target) -> None:
    items = expected(target)["generated"]
    wanted = [(i["context"], {"until": [i["until"]], "max_gen_toks": 20, "temperature": 0}) for i in items]
    found = model_of(target, batch=1).generate_until(asked("generate_until", *wanted))
    same(found, [item["text"] for item in items])


@check
def chats_are_answered(target: Target) -> None:
    chat = LocalChatCompletion(base_url=f"{target.base}/chat/completions", model=target.model, max_retries=1)
    spoken = chat.apply_chat_template([{"role": "user", "content": "How is the wind?"}])
    (text,) = chat.generate_until(asked("generate_until", (spoken, {"until": ["\n\n\n"], "max_gen_toks": 12})))
    holds(text)


if __name__ == "__main__":
    sys.exit(run("lm-eval"))
