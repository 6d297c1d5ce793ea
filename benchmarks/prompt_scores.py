"""Memory that log-probabilities of long prompts take: 16 requests at once over HTTP, each of 8 prompts of 2,047 tokens
with `echo` and `logprobs`, on a server on a local Ray.

    python -m benchmarks.prompt_scores [--at-once 16] [--batch 8] [--no-publish]

The head may grow by less than the logits of two prefill steps. A small fp32 model with Mistral's vocabulary: what it
computes is small, and its logits are as large as those of Mixtral 8x7B.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks import mid
from benchmarks.report import publish, say
from benchmarks.server import Server, serving

_PROMPT, _STEP = 2047, 2048  # tokens; a step's are scheduler.max_tokens_per_step
_CONTENT = mid.CONTENT | {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "dtype": "float32",
}
_ALLOWED = 2 * _STEP * _CONTENT["vocab_size"] * 4
_SECONDS = 1800.0


class Peak:
    """The most that a process holds from now on, by the kernel's own count."""

    def __init__(self, process: psutil.Process) -> None:
        self._folder = Path(f"/proc/{process.pid}")
        (self._folder / "clear_refs").write_text("5")
        self.before = self._kib("VmRSS")

    @property
    def grown(self) -> int:
        """Bytes."""
        return (self._kib("VmHWM") - self.before) << 10

    @property
    def kept(self) -> int:
        """Bytes that it has not given back."""
        return (self._kib("VmRSS") - self.before) << 10

    def _kib(self, name: str) -> int:
        for line in (self._folder / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise KeyError(name)


async def ask(address: str, prompts: Sequence[Sequence[int]], **fields: Any) -> dict[str, Any]:
    """A completion of several prompts; RuntimeError with what came if it is none."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    raw = json.dumps({"prompt": prompts, "max_tokens": 1, "temperature": 0} | fields).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(raw)
    writer.write(head + raw)
    come = await asyncio.wait_for(reader.read(), _SECONDS)
    writer.close()
    status, _, body = come.partition(b"\r\n\r\n")
    if b" 200 " not in status.split(b"\r\n")[0]:
        raise RuntimeError(come[:1000].decode(errors="replace"))
    answer: dict[str, Any] = json.loads(body)
    return answer


async def load(address: str, at_once: int, batch: int, rng: random.Random, **fields: Any) -> None:
    """So many requests at once, none with another's prompts."""

    async def one() -> None:
        prompts = [[1, *(rng.randrange(300, 32000) for _ in range(_PROMPT - 1))] for _ in range(batch)]
        answer = await ask(address, prompts, **fields)
        if "echo" not in fields:
            return
        for choice in answer["choices"]:
            scores = choice["logprobs"]["token_logprobs"]
            if len(scores) != _PROMPT + 1 or scores[0] is not None or None in scores[1:]:
                raise RuntimeError(f"{len(scores)} log-probabilities of {_PROMPT + 1} tokens")

    await asyncio.gather(*(one() for _ in range(at_once)))


def main() -> int:
    """The exit code is 1 if the head grew by more than it may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--no-publish", action="store_true", help="only to see whether it holds")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = mid.write(Path(folder) / "small", mid.mistral_tokenizer(), _CONTENT)
        with serving(f"model.path={checkpoint}", f"scheduler.max_tokens_per_step={_STEP}") as server:
            return _measure(server, arguments)


def _measure(server: Server, arguments: argparse.Namespace) -> int:
    rng = random.Random(2026)
    (head,) = [p for p in server.processes()["actors"] if " ".join(p.cmdline()).startswith("ray::HeadActor")]
    asyncio.run(load(server.http, 2, 2, rng))  # what any prompt of this length takes
    rows, grown = list[list[str]](), 0
    for what, fields in (("no log-probabilities", {}), ("echo and logprobs: 1", {"echo": True, "logprobs": 1})):
        peaks = {"head": Peak(head), "serve": Peak(server.process)}
        asyncio.run(load(server.http, arguments.at_once, arguments.batch, rng, **fields))
        cells = [f"{size / 2**20:.0f}" for peak in peaks.values() for size in (peak.grown, peak.kept)]
        rows.append([what, *cells])
        grown = peaks["head"].grown
        say(f"prompt scores: {rows[-1]}")
    allowed = f"The head may grow by {_ALLOWED / 2**20:.0f} MiB, the logits of two steps of {_STEP} tokens."
    if arguments.no_publish:
        say(allowed)
    else:
        publish(
            "prompt_scores",
            f"Memory while {arguments.at_once} requests of {arguments.batch} prompts of {_PROMPT} tokens are answered",
            ("what is asked for", "head MiB at most", "kept", "serve MiB at most", "kept"),
            rows,
            allowed,
        )
    return 0 if grown < _ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
