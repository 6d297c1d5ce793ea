"""Tiny Mixtral checkpoints of random weights in HF layout, and head and experts in this process that hold one."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from actors.expert import Expert
from actors.head import Head
from actors.replica import one_each
from actors.routing.replicas import Replicas
from actors.routing.router import ExpertRouter
from actors.specs import ActorSpec
from actors.transport.local import LocalTransport
from actors.transport.seam import ExpertTransport
from model.batch import Chunk, NewSequence, SamplingParams, StepPlan, StepResult
from model.checkpoint.entries import expected_shapes
from model.checkpoint.params import load_config
from model.checkpoint.weights import torch_dtype
from model.config import MixtralConfig

GREEDY = SamplingParams(temperature=0.0)


def tiny(**changes: Any) -> dict[str, Any]:
    """What stands in the `config.json` of a two-layer model; a change to None takes the key out."""
    content = {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "rope_theta": 10000.0,
        "eos_token_id": None,
        "dtype": "float32",
    }
    return {key: value for key, value in (content | changes).items() if value is not None or key == "eos_token_id"}


def random_weights(content: Mapping[str, Any], seed: int = 0, std: float = 0.2) -> dict[str, torch.Tensor]:
    """Every tensor that the configuration asks for; norms scatter around one. A `std` as large as this one keeps
    the best logits apart.
    """
    config, source = MixtralConfig.from_hf(content), torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(shape, generator=source) * std + (1.0 if "norm" in name else 0.0)).to(
            torch_dtype(config.dtype)
        )
        for name, shape in expected_shapes(config).items()
    }


def write(
    folder: Path, content: Mapping[str, Any], tensors: Mapping[str, torch.Tensor] | None = None, shards: int = 1
) -> Path:
    """Write a checkpoint: one file, or `shards` files of like size and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content))
    tensors = dict(random_weights(content) if tensors is None else tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder
    weight_map = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        save_file({n: tensors[n] for n, where in weight_map.items() if where == file}, folder / file, {"format": "pt"})
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def spec(
    folder: Path, expert: int | None = None, dtype: str = "float32", pages: int = 64, page_size: int = 4
) -> ActorSpec:
    """What head (no `expert`) or expert is built from; the head gets just the memory for `pages`."""
    memory = pages * page_size * load_config(folder)[0].kv_token_bytes(torch_dtype(dtype).itemsize)
    return ActorSpec(str(folder), dtype, "cpu", 1, expert=expert, kv_memory_bytes=memory, page_size=page_size)


def load_experts(folder: Path, dtype: str = "float32", quantization: str = "none") -> list[Expert]:
    """All experts of a checkpoint; their weights may still be loading."""
    count = load_config(folder)[0].num_local_experts
    return [Expert(replace(spec(folder, e, dtype), quantization=quantization)) for e in range(count)]


def load_head(
    folder: Path,
    dtype: str = "float32",
    pages: int = 64,
    page_size: int = 4,
    transport: Callable[[], ExpertTransport] = LocalTransport,
    micro_batches: int = 0,
    quantization: str = "none",
    own_quantization: str = "none",
) -> Head:
    """A head connected to all experts of its checkpoint."""
    own = spec(folder, None, dtype, pages, page_size)
    own = replace(own, micro_batches=micro_batches, quantization=own_quantization)
    head, experts = Head(own), load_experts(folder, dtype, quantization)
    head.connect(ExpertRouter(transport(), Replicas(one_each(experts))))
    return head


@dataclass(frozen=True, slots=True)
class Request:
    """A sequence to run. Its prompt is run in chunks of the sizes `chunks`, the last one repeated as needed."""

    prompt: Sequence[int]
    count: int
    chunks: tuple[int, ...] = (1_000_000,)
    sampling: SamplingParams = GREEDY
    routing: bool = False


class Driver:
    """Plays the engine: all requests at once, one chunk of each in every step.

    Pages come from a pool in scattered order. Under a sliding `window` they go back as soon as they are wholly
    older, so that others overwrite them while the sequence still names them in its table.
    """

    def __init__(self, head: Head, epoch: int = 1, window: int | None = None) -> None:
        self.head, self.epoch, self.window = head, epoch, window
        self.info = head.begin(epoch)
        self.free = [page * 7 % self.info.page_count for page in range(self.info.page_count)]
        assert len(set(self.free)) == self.info.page_count, "choose a page count that 7 does not divide"
        self.step, self.most_pages = 0, 0
        self.results: list[StepResult] = []

    def run(self, requests: Sequence[Request]) -> list[list[int]]:
        """The tokens sampled for each."""
        state = [_Running(slot, request) for slot, request in enumerate(requests)]
        while active := [s for s in state if len(s.sampled) < s.request.count]:
            chunks = tuple(self._chunk(s) for s in active)
            ended = tuple(s.slot for s in state if s not in active and s.pages)
            for slot in ended:
                self.free += state[slot].pages.values()
                state[slot].pages = {}
            admit = tuple(s.admission() for s in active if s.done == 0)
            result = self.head.step(
                StepPlan(self.step, self.epoch, self.info.incarnation, ended, admit, chunks),
            )
            assert isinstance(result, StepResult), result
            self.results.append(result)
            self.step += 1
            for s, chunk in zip(active, chunks, strict=True):
                s.done += chunk.length
            for token in result.tokens:
                state[token.slot].sampled.append(token.token_id)
        self.head.step(
            StepPlan(self.step, self.epoch, self.info.incarnation, tuple(s.slot for s in state if s.pages), (), ())
        )
        for s in state:
            self.free += s.pages.values()
        return [s.sampled for s in state]

    def _chunk(self, s: "_Running") -> Chunk:
        known = len(s.request.prompt) + len(s.sampled)
        sizes = s.request.chunks
        length = min(sizes[min(s.steps, len(sizes) - 1)], known - s.done)
        s.steps += 1
        size = self.info.page_size
        if self.window is not None:
            for index in [i for i in s.pages if (i + 1) * size <= s.done - self.window + 1]:
                self.free.insert(0, s.pages.pop(index))
        wanted = range(-(-s.done // size), -(-(s.done + length) // size))
        s.pages |= {index: self.free.pop(0) for index in wanted}
        self.most_pages = max(self.most_pages, len(s.pages))
        new_pages = tuple(s.pages[index] for index in wanted)
        return Chunk(s.slot, s.done, length, new_pages, sample=s.done + length == known)


class _Running:
    """A request under way: tokens `done` are in the cache, `pages` those it still holds by their place."""

    def __init__(self, slot: int, request: Request) -> None:
        self.slot, self.request = slot, request
        self.done, self.steps = 0, 0
        self.sampled: list[int] = []
        self.pages: dict[int, int] = {}

    def admission(self) -> NewSequence:
        prompt = tuple(self.request.prompt)
        return NewSequence(self.slot, prompt, len(prompt), self.request.sampling, self.request.routing)
