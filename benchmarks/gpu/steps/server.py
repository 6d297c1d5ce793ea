"""The server as it is meant: a local Ray, head and experts as actors on fractions of one card, kills and scalings."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import mid
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.measure.mishap import MISHAPS, reason
from benchmarks.gpu.measure.processes import on_device
from benchmarks.gpu.measure.same_outputs import PROMPTS, transformers_greedy
from benchmarks.load import percentile
from cluster.client.messages import text_request
from cluster.engine.served_model import DEMO_FOLDER
from cluster.settings.request_options import Options
from model.text.tokenizer import Tokenizer
from tests.chaos.streams import Streams, Tally, some_requests
from tests.chaos.victims import Victims, send
from tests.integration.server import Server

TITLE = "the server, its actors on fractions of one card"

_HEAD_SHARE, _EXPERT_SHARE = 0.2, 0.08  # of the card; leaves room for two more experts
_BUNDLED_TOKENIZER = Path("gpu-bundle/tokenizer.model")
_SMALL = mid.CONTENT | {
    "vocab_size": 2048,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_local_experts": 2,
}


@dataclass(frozen=True, slots=True)
class Model:
    """The server of a step. In `float32` every id must be transformers' and stay the same whatever happens; in bfloat16
    the share that is, is told.
    """

    name: str
    folder: Path
    dtype: str
    settings: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether identity is promised."""
        return self.dtype == "float32"


def run(bench: Bench) -> None:
    """See TITLE."""
    with tempfile.TemporaryDirectory() as folder:
        demo = Model("demo", DEMO_FOLDER, "float32")
        _serve(bench, demo, kills=True)
        if bench.left() < (60 if bench.full else 30):
            bench.findings.note("left out for want of time: the second checkpoint, mid")
            return
        if bench.full:
            tokenizer = _BUNDLED_TOKENIZER if _BUNDLED_TOKENIZER.exists() else mid.mistral_tokenizer()
            checkpoint = mid.write(Path(folder) / "mid", tokenizer, device=bench.device)
        else:
            checkpoint = mid.write(Path(folder) / "mid", DEMO_FOLDER / "tokenizer.model", _SMALL)
        bench.free()
        settings: tuple[str, ...] = ("kv.memory_share=0.2", "kv.page_size=256")
        settings += () if bench.full else (f"experts.count={_SMALL['num_local_experts']}",)
        _serve(bench, Model("mid", checkpoint, "bfloat16", settings), kills=bench.full)


def _serve(bench: Bench, model: Model, kills: bool) -> None:
    settings = [f"model.dtype={model.dtype}", *model.settings]
    if bench.device.type == "cuda":
        settings += [f"head.num_gpus={_HEAD_SHARE}", f"experts.num_gpus={_EXPERT_SHARE}"]
    where = f"{model.name}, {model.dtype}"
    began = time.monotonic()
    state = Path(os.environ["EIGHTWINDS_STATE"]) / model.name  # where the runner looks for what is left
    state.mkdir()
    server = Server("--model", str(model.folder), *(word for s in settings for word in ("--set", s)), state=state)
    try:
        expected = _expected(bench, model)  # while the server starts
        server.wait_ready(min(75.0, bench.left() - 10))
        bench.findings.fact(f"{where}: ready after", f"{time.monotonic() - began:.1f} s")
        victims = Victims(server)
        _compare(bench, where, model, server, expected)
        _status(bench, where, victims)
        _streams(bench, where, model, victims, kills)
    except (*MISHAPS, AssertionError) as error:
        bench.findings.check(f"{where}: served", False, f"{reason(error)} {server.stderr()[-600:]}")
    except SystemExit:  # the step's time is over
        bench.findings.note(f"{where}: stopped; the server had said: {server.stderr()[-600:]!r}")
        raise
    finally:
        server.close()


def _expected(bench: Bench, model: Model) -> list[list[int]]:
    tokenizer = Tokenizer.load(model.folder)
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    count, dtype = (32 if bench.full else 8), getattr(torch, model.dtype)
    return transformers_greedy(bench.device, dtype, prompts, count, model.folder)


def _compare(bench: Bench, where: str, model: Model, server: Server, expected: Sequence[Sequence[int]]) -> None:
    found = []
    with server.client() as client:
        for text, ids in zip(PROMPTS, expected, strict=True):
            request = text_request(text, Options(max_tokens=len(ids), temperature=0.0))
            request.stopping.ignore_eos = request.output.token_ids = True
            found.append(list(client.generate(request).outputs[0].token_ids))
    same = sum(_common(a, b) for a, b in zip(found, expected, strict=True))
    total = sum(map(len, expected))
    detail = f"{same} of {total} before a first difference"
    if model.exact:
        bench.findings.check(f"{where}: greedy ids are transformers' on this device", found == list(expected), detail)
    else:
        bench.findings.fact(f"{where}: greedy ids as transformers'", detail)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _status(bench: Bench, where: str, victims: Victims) -> None:
    """GetStatus' account of devices and memory, against the processes themselves."""
    status = victims.status()
    replicas = [replica for expert in status.experts for replica in expert.replicas]
    wanted = bench.device.type
    lies = [
        f"process {r.pid} is said to be on {r.device}"
        for r in replicas
        if r.device != wanted or on_device(r.pid) != (wanted == "cuda")
    ]
    if wanted == "cuda" and not on_device(victims.head()):
        lies.append("the head does not use the card")
    bench.findings.check(f"{where}: GetStatus tells every replica's device", not lies, "; ".join(lies))
    (node,) = status.nodes
    accelerators = torch.cuda.device_count() if wanted == "cuda" else 0
    told = (
        f"{node.accelerator_count} accelerators, {node.memory_used_bytes >> 20} of {node.memory_total_bytes >> 20} MiB"
    )
    true = node.accelerator_count == accelerators and 0 < node.memory_used_bytes < node.memory_total_bytes
    bench.findings.check(f"{where}: GetStatus tells the node's accelerators and memory", true, told)


def _streams(bench: Bench, where: str, model: Model, victims: Victims, kills: bool) -> None:
    """Sixteen streams, six in a rehearsal, and what happens to them meanwhile."""
    requests = some_requests(5, 8, 32) if bench.full else some_requests(5, 4, 16)
    streams = Streams(victims.server.address, requests, 16 if bench.full else 6)
    streams.learn()
    _round(bench, where, model, streams, f"{streams.at_once} streams, nothing happens", lambda: None)
    if not kills:
        return

    def kill_expert() -> None:
        pid = victims.ready(3)[0].pid
        send(pid, signal.SIGKILL)
        victims.wait_gone(3, pid)
        victims.wait_ready({3: 1})

    def kill_head() -> None:
        send(victims.head(), signal.SIGKILL)
        victims.wait_served()

    _round(bench, where, model, streams, "an expert is killed, its only copy", kill_expert)
    _round(bench, where, model, streams, "an expert is scaled 1 -> 2 -> 1", lambda: _there_and_back(victims))
    _round(bench, where, model, streams, "the head is killed", kill_head, computed_again=True)


def _there_and_back(victims: Victims) -> None:
    for count in (2, 1):
        victims.scale({1: count})


def _round(
    bench: Bench,
    where: str,
    model: Model,
    streams: Streams,
    what: str,
    deed: Callable[[], None],
    computed_again: bool = False,
) -> None:
    tally: Tally = streams.start()
    try:
        time.sleep(1.0)
        began = time.monotonic()
        deed()
        took = time.monotonic() - began
        time.sleep(1.0)
    finally:
        streams.stop()
    gaps = tally.gaps()
    cells = {
        "server": where,
        "what": what,
        "requests": tally.done,
        "failed": len(tally.failed),
        "different": tally.different,
        "longest gap s": f"{max(gaps, default=0.0):.2f}",
        "p50 gap ms": f"{1000 * percentile(gaps, 50):.1f}",
        "it took s": f"{took:.1f}",
    }
    bench.findings.row("streams", cells)
    may_differ = not model.exact and computed_again
    right = not tally.failed and tally.done > 0 and (may_differ or not tally.different)
    bench.findings.check(f"{where}: {what}", right, "; ".join(sorted(set(tally.failed)))[:500])
