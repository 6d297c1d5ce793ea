"""inspect-ai: small tasks with its providers `openai-api`, `vllm` and `openai-api-completions`."""

import asyncio
import os
import sys
from typing import Any, Literal

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import Tool, ToolFunction, tool

from tests.clients.checks import Target, check, holds, run, same


def evaluated(target: Target, provider: str, samples: list[Sample], **fields: Any) -> Any:
    os.environ |= {"EIGHTWINDS_BASE_URL": target.base, "EIGHTWINDS_API_KEY": "none"}
    os.environ |= {"VLLM_BASE_URL": target.base, "VLLM_API_KEY": "none"}
    task = Task(dataset=samples, solver=generate(), scorer=includes())
    config = {"temperature": 0.0, "max_tokens": 12, "max_retries": 1} | fields
    (log,) = eval(task, model=f"{provider}/{target.model}", log_dir="inspect", display="none", **config)
    same((log.status, log.error), ("success", None))
    return log


@tool
def wind() -> Tool:
    async def execute(quarter: Literal["north", "south"]) -> str:
        """Ask for a wind.

        Args:
            quarter: Where it comes from.
        """
        return f"the {quarter} wind"

    return execute


def questions(count: int) -> list[Sample]:
    return [Sample(input=f"Where is wind {number}?", target="north") for number in range(count)]


@check
def a_task_is_run_to_its_end_with_each_provider(target: Target) -> None:
    texts = []
    for provider in ("openai-api/eightwinds", "vllm"):
        log = evaluated(target, provider, questions(12))
        same(len(log.samples), 12)
        (usage,) = log.stats.model_usage.values()
        same(usage.output_tokens, 144)
        texts.append([sample.output.completion for sample in log.samples])
    same(texts[0], texts[1])
    holds(all(texts[0]))


@check
def a_prompt_that_is_too_long_is_the_models_length(target: Target) -> None:
    for provider in ("openai-api/eightwinds", "vllm"):
        log = evaluated(target, provider, [Sample(input="wind " * 3000, target="north")])
        same([sample.output.stop_reason for sample in log.samples], ["model_length"])


@check
def a_schema_is_kept(target: Target) -> None:
    from inspect_ai.model import ResponseSchema
    from inspect_ai.util import JSONSchema

    schema = JSONSchema(type="object", properties={"warm": JSONSchema(type="boolean")}, required=["warm"])
    wanted = {"response_schema": ResponseSchema(name="weather", json_schema=schema), "max_tokens": 60}
    log = evaluated(target, "openai-api/eightwinds", questions(2), **wanted)
    holds(all('"warm"' in sample.output.completion for sample in log.samples))


@check
def a_tool_is_called(target: Target) -> None:
    os.environ |= {"EIGHTWINDS_BASE_URL": target.base, "EIGHTWINDS_API_KEY": "none"}
    solver = [use_tools(wind(), tool_choice=ToolFunction(name="wind")), generate(tool_calls="single")]
    task = Task(dataset=questions(2), solver=solver, scorer=includes())
    model, config = f"openai-api/eightwinds/{target.model}", {"temperature": 0.0, "max_tokens": 100}
    (log,) = eval(task, model=model, log_dir="inspect", display="none", **config)
    same((log.status, log.error), ("success", None))
    for sample in log.samples:
        (answer,) = [message for message in sample.messages if message.role == "tool"]
        same((answer.function, answer.error), ("wind", None))
        holds(answer.text.endswith("wind"), "what the tool said")


@check
def its_tokens_are_the_servers(target: Target) -> None:
    os.environ |= {"VLLM_BASE_URL": target.base, "VLLM_API_KEY": "none"}

    async def count() -> int:
        model = get_model(f"vllm/{target.model}", config=GenerateConfig(max_tokens=4))
        return len(await model.api.tokenize("Hello world"))

    same(asyncio.run(count()), 2)


if __name__ == "__main__":
    sys.exit(run("inspect-ai", "openai"))
