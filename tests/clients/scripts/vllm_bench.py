"""vLLM: `vllm bench serve`, four at once, with completions and with chats."""

import json
import sys
from pathlib import Path

from tests.clients.checks import Target, check, run, same
from tests.clients.scripts.command import run_command

REQUESTS = 12


def benchmarked(target: Target, backend: str, path: str) -> None:
    run_command(
        *("vllm", "bench", "serve", "--backend", backend, "--base-url", f"http://{target.http}", "--endpoint", path),
        *("--model", target.model, "--tokenizer", f"{target.folder}/tokenizer"),
        *("--dataset-name", "random", "--random-input-len", "32", "--random-output-len", "16", "--ignore-eos"),
        *("--num-prompts", str(REQUESTS), "--max-concurrency", "4", "--percentile-metrics", "ttft,tpot"),
        *("--save-result", "--result-dir", target.folder, "--result-filename", "vllm.json"),
    )
    found = json.loads((Path(target.folder) / "vllm.json").read_text())
    same((found["completed"], found["failed"], found["total_output_tokens"]), (REQUESTS, 0, 16 * REQUESTS))


@check
def completions_are_measured(target: Target) -> None:
    benchmarked(target, "openai", "/v1/completions")


@check
def chats_are_measured(target: Target) -> None:
    benchmarked(target, "openai-chat", "/v1/chat/completions")


if __name__ == "__main__":
    sys.exit(run("vllm"))
