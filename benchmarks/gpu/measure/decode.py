"""The head's part of a decode step, and one expert's, with random weights made on the device.

T: rows of the batch, D: hidden size, V: vocabulary.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from model.attention.attention import AttentionBackend, choose_backend
from model.attention.kv_cache import PagedKVCache
from model.attention.ragged import RaggedBatch, Segment
from model.config import MixtralConfig
from model.experts.dense import ExpertWeights
from model.experts.loading import expert_of
from model.trunk import Trunk


class DecodeHead:
    """A trunk of all layers, `deep`, and one of its first layer, `flat`; sequences of `context` keys in scattered
    pages, the step's own key included.
    """

    def __init__(
        self,
        config: MixtralConfig,
        dtype: torch.dtype,
        device: torch.device,
        sequences: int,
        context: int,
        page_size: int,
    ) -> None:
        self.config, self.device, self.context = config, device, context
        tensors = dict(_head_tensors(config, dtype, device))
        self.deep, self.flat = Trunk(config, tensors), Trunk(replace(config, num_hidden_layers=1), tensors)
        self.attention = choose_backend(dtype, device, config.head_dim, None, page_size)
        each = -(-context // page_size)
        self.cache = PagedKVCache(config, each * sequences, page_size, dtype, device)
        self.cache.keys.normal_()
        self.cache.values.normal_()
        pool = random.Random(7).sample(range(self.cache.page_count), self.cache.page_count)
        self._pages = [pool[i * each : (i + 1) * each] for i in range(sequences)]

    @property
    def layer_bytes(self) -> int:
        """Bytes of a layer's weights."""
        return (self.deep.nbytes() - self.flat.nbytes()) // (self.config.num_hidden_layers - 1)

    def batch(self, rows: int) -> RaggedBatch:
        """The next token of so many sequences."""
        segments = [Segment(row, 1, self.context - 1, self._pages[row]) for row in range(rows)]
        ids = [row * 7919 % self.config.vocab_size for row in range(rows)]
        return RaggedBatch.build(segments, ids, range(rows), self.cache.page_size, self.device)

    def step(
        self, trunk: Trunk, batch: RaggedBatch, attention: AttentionBackend, answer_TD: torch.Tensor
    ) -> torch.Tensor:
        """Logits [T, V], every layer's experts having answered the same."""
        forward = trunk.forward(batch, self.cache, attention)
        try:
            next(forward)
            while True:
                forward.send(answer_TD)
        except StopIteration as end:
            logits_TV: torch.Tensor = end.value
            return logits_TV


class Prepared:
    """A backend that has prepared its batch."""

    def __init__(self, backend: AttentionBackend, batch: RaggedBatch) -> None:
        self.name, self.page_multiple = backend.name, backend.page_multiple
        self.attend = backend.attend
        self._tables = backend.prepare(batch)

    def prepare(self, batch: RaggedBatch) -> Any:
        """See `AttentionBackend`."""
        return self._tables


def random_expert(config: MixtralConfig, dtype: torch.dtype, device: torch.device) -> ExpertWeights:
    """One expert's matrices of every layer."""
    wide, narrow = config.intermediate_size, config.hidden_size
    shapes = {"w1": (wide, narrow), "w2": (narrow, wide), "w3": (wide, narrow)}
    tensors = {
        f"model.layers.{layer}.block_sparse_moe.experts.0.{name}.weight": _random(shape, dtype, device)
        for layer in range(config.num_hidden_layers)
        for name, shape in shapes.items()
    }
    return expert_of(0, config.num_hidden_layers, tensors)


def _head_tensors(c: MixtralConfig, dtype: torch.dtype, device: torch.device) -> Iterator[tuple[str, torch.Tensor]]:
    """No two layers share one: a layer's weights must not be in the cache from the layer before."""
    queries, keys = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    shapes = {
        "self_attn.q_proj": (queries, c.hidden_size),
        "self_attn.k_proj": (keys, c.hidden_size),
        "self_attn.v_proj": (keys, c.hidden_size),
        "self_attn.o_proj": (c.hidden_size, queries),
        "block_sparse_moe.gate": (c.num_local_experts, c.hidden_size),
    }
    ones_D = torch.ones(c.hidden_size, dtype=dtype, device=device)
    for at in (f"model.layers.{layer}" for layer in range(c.num_hidden_layers)):
        for name, shape in shapes.items():
            yield f"{at}.{name}.weight", _random(shape, dtype, device)
        yield f"{at}.input_layernorm.weight", ones_D
        yield f"{at}.post_attention_layernorm.weight", ones_D
    yield "model.norm.weight", ones_D
    for name in ("model.embed_tokens", "lm_head"):
        yield f"{name}.weight", _random((c.vocab_size, c.hidden_size), dtype, device)


def _random(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device=device).normal_(std=0.02)
