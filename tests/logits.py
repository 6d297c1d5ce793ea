"""transformers' model of a checkpoint, and our own logits at every position of texts, on any device."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import MixtralForCausalLM

from actors.expert import Expert
from actors.replica import one_each
from actors.routing.replicas import Replicas
from actors.routing.router import ExpertRouter
from actors.routing.step_counts import StepCounts
from model.attention.attention import AttentionBackend
from model.attention.kv_cache import PagedKVCache
from model.attention.ragged import RaggedBatch, Segment
from model.attention.sdpa import SdpaBackend
from model.checkpoint.folder import Checkpoint
from model.checkpoint.weights import Tensors, torch_dtype
from model.device.host_link import host_link
from model.trunk import Trunk
from tests.by_message import ByMessage
from tests.checkpoints import spec

MakeBackend = Callable[[int | None, int], AttentionBackend]  # window, page size


def load_transformers(folder: Path, dtype: torch.dtype = torch.float32, attention: str = "eager") -> Any:
    """The model with plain implementations of its parts: the fast ones ask for sizes that suit them."""
    loaded: Any = MixtralForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation=attention,
        experts_implementation="eager",
        output_loading_info=True,
    )
    model, told = loaded
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
    return model


def chunked_logits(
    folder: Path,
    texts: Sequence[Sequence[int]],
    chunks: Sequence[Sequence[int]],
    dtype: str = "float32",
    device: str = "cpu",
    page_size: int = 3,
    make_backend: MakeBackend = SdpaBackend,
    quantization: str = "none",
) -> list[torch.Tensor]:
    """Logits at every position of every text, on the host: all texts in each step's batch, a text in chunks of the
    sizes given for it (the last is repeated), by trunk, router and experts that are sent bytes.
    """
    checkpoint = Checkpoint.open(folder)
    config = checkpoint.config
    trunk = Trunk(config, Tensors(checkpoint, checkpoint.head_names(), torch_dtype(dtype), device))
    specs = [spec(folder, e, dtype) for e in range(config.num_local_experts)]
    experts = [Expert(replace(own, device=device, quantization=quantization)) for own in specs]
    router = ExpertRouter(ByMessage(), Replicas(one_each(experts)), link=host_link(device))
    backend = make_backend(config.sliding_window, page_size)
    per_text = -(-max(map(len, texts)) // page_size)
    cache = PagedKVCache(config, len(texts) * per_text, page_size, torch_dtype(dtype), device)
    pages = [list(range(i, cache.page_count, len(texts))) for i in range(len(texts))]
    done, steps = [0] * len(texts), 0
    found: list[list[torch.Tensor]] = [[] for _ in texts]
    while active := [i for i, text in enumerate(texts) if done[i] < len(text)]:
        segments: list[Segment] = []
        token_ids: list[int] = []
        for i in active:
            length = min(chunks[i][min(steps, len(chunks[i]) - 1)], len(texts[i]) - done[i])
            segments.append(Segment(len(token_ids), length, done[i], pages[i]))
            token_ids += texts[i][done[i] : done[i] + length]
            done[i] += length
        batch = RaggedBatch.build(segments, token_ids, range(len(token_ids)), page_size, device)
        with torch.inference_mode():
            (logits,) = router.run([trunk.forward(batch, cache, backend)], StepCounts())
        for i, part in zip(active, logits.cpu().split([s.length for s in segments]), strict=True):
            found[i].append(part)
        steps += 1
    return [torch.cat(parts) for parts in found]
