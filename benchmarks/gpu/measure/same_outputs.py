"""Whole requests through engine, head and experts of one process: on the device as on the CPU, and as transformers.

The demo checkpoint in fp32. Greedy and seeded ones, several outputs that share their prompt's pages, a cache so small
that sequences are preempted and pages copied.
"""

import random
from typing import Any

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.measure.mishap import MISHAPS, reason
from cluster.engine.served_model import DEMO_FOLDER, ServedModel
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.logits import load_transformers
from tests.mixed import Answer, ask_all, some_request
from tests.serving import serve_locally

PROMPTS = ("My favourite condiment is", "Once upon a time there was a brave mouse", "What is 37 + 48?", "The wind")
_PAGES = 24


def compare_outputs(bench: Bench) -> None:
    """Two checks: as on the CPU, as transformers on this device."""
    rng = random.Random(31)
    requests = [some_request(rng) for _ in range(40 if bench.full else 6)]
    served = ServedModel.open("demo")
    greedy = [pb.GenerateRequest(prompt=pb.Prompt(text=text), **_greedy(24)) for text in PROMPTS]
    try:
        there = _answers(served, bench.device, [*requests, *greedy])
        here = _answers(served, torch.device("cpu"), requests)
        expected = transformers_greedy(bench.device, torch.float32, [served.tokenizer.encode(t) for t in PROMPTS], 24)
    except MISHAPS as error:
        bench.findings.check("outputs in one process", False, reason(error))
        return
    differ = sum(a != b for a, b in zip(there, here, strict=False))
    bench.findings.check(
        "outputs in one process as on the CPU (fp32, n up to 4, shared pages)",
        not differ,
        f"{differ} of {len(requests)} requests differ",
    )
    found = [outputs[0][1] for outputs in there[len(requests) :]]
    bench.findings.check("greedy ids in one process as transformers' (demo, fp32)", found == expected, f"{found[0]}")


def _greedy(count: int) -> dict[str, Any]:
    return {
        "sampling": pb.Sampling(temperature=0.0),
        "stopping": pb.Stopping(max_tokens=count, ignore_eos=True),
        "output": pb.OutputOptions(token_ids=True),
    }


def _answers(served: ServedModel, device: torch.device, requests: list[pb.GenerateRequest]) -> list[Answer]:
    memory = _PAGES * 16 * served.checkpoint.config.kv_token_bytes(4)
    settings = [f"kv.memory_bytes={memory}", "scheduler.max_tokens_per_step=64"]
    if device.type == "cuda":
        settings += ["head.num_gpus=1", "experts.num_gpus=1"]
    serving = serve_locally(served, *settings)
    try:
        return ask_all(serving.client, requests, 5, at_once=16)
    finally:
        serving.close()


def transformers_greedy(
    device: torch.device, dtype: torch.dtype, prompts: list[list[int]], count: int, folder: Any = DEMO_FOLDER
) -> list[list[int]]:
    """The next `count` ids of each prompt, by transformers on this device; end-of-sequence does not stop it."""
    model = load_transformers(folder, dtype).to(device)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    found = []
    with torch.inference_mode():
        for ids in prompts:
            out = model.generate(torch.tensor([ids], device=device), max_new_tokens=count, do_sample=False)
            found.append(out[0, len(ids) :].tolist())
    return found
