"""aiperf: `aiperf profile`, four at once, with streams of chats, of completions, and with whole answers."""

import json
import sys
from pathlib import Path

from tests.clients.checks import Target, check, run, same
from tests.clients.scripts.command import run_command

REQUESTS = 12


def profiled(target: Target, kind: str, *more: str) -> None:
    artifacts = Path(target.folder) / f"aiperf-{kind}{len(more)}"
    run_command(
        *("aiperf", "profile", "--model", target.model, "--url", f"http://{target.http}", "--endpoint-type", kind),
        *("--concurrency", "4", "--request-count", str(REQUESTS), "--isl", "32", "--osl", "16", "--ui", "none"),
        *("--tokenizer", f"{target.folder}/tokenizer", "--extra-inputs", "ignore_eos:true"),
        *("--artifact-dir", str(artifacts), "--random-seed", "1", *more),
        without="HF_HUB_OFFLINE",  # with it aiperf takes a tokenizer's folder for the name of a repository
    )
    (file,) = artifacts.rglob("profile_export_aiperf.json")
    found = json.loads(file.read_text())
    same((found["request_count"]["avg"], found.get("error_summary", [])), (REQUESTS, []))


@check
def streams_of_chats_are_measured(target: Target) -> None:
    profiled(target, "chat", "--streaming", "--use-server-token-count")


@check
def streams_of_completions_are_measured(target: Target) -> None:
    profiled(target, "completions", "--streaming")


@check
def whole_answers_are_measured(target: Target) -> None:
    profiled(target, "chat")


if __name__ == "__main__":
    sys.exit(run("aiperf"))
