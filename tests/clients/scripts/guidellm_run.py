"""guidellm: `guidellm run`, four streams at once, with chats and with completions."""

import json
import sys
from pathlib import Path
from typing import Any

from tests.clients.checks import Target, check, run, same
from tests.clients.scripts.command import run_command

REQUESTS = 12


def benchmarked(target: Target, path: str) -> Any:
    report = Path(target.folder) / "guidellm.json"
    run_command(
        *("guidellm", "run", "--disable-console-interactive"),
        *("--backend", f"kind=openai_http,target=http://{target.http},model={target.model},request_format={path}"),
        *("--profile", "kind=concurrent,streams=4", "--constraint", f"kind=max_requests,count={REQUESTS}"),
        *("--data", "kind=synthetic_text,prompt_tokens=32,output_tokens=16"),
        *("--tokenizer", f"kind=huggingface_auto,model={target.folder}/tokenizer"),
        *("--output", f"kind=json,path={report}"),
    )
    (benchmark,) = json.loads(report.read_text())["benchmarks"]
    return benchmark


def all_answered(benchmark: Any) -> None:
    totals = benchmark["metrics"]["request_totals"]
    same((totals["successful"], totals["errored"]), (REQUESTS, 0))
    same({len(found) for found in benchmark["requests"]["errored"]}, set())
    tokens = {request["output_metrics"]["text_tokens"] for request in benchmark["requests"]["successful"]}
    same(tokens, {16})


@check
def chats_are_measured(target: Target) -> None:
    all_answered(benchmarked(target, "/v1/chat/completions"))


@check
def completions_are_measured(target: Target) -> None:
    all_answered(benchmarked(target, "/v1/completions"))


if __name__ == "__main__":
    sys.exit(run("guidellm"))
