"""Everything of Mixtral but its experts: embedding, attention, gate, norms, output head.

The trunk is a generator: it yields a layer's rows for its experts and is sent their combined answer, wherever they are
(gpt-fast applies parallelism from outside, too).
T: tokens of the batch, D: hidden size, H/N: query/KV heads, d: head dimension, V: vocabulary.
"""

from collections.abc import Generator, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F

from model.attention.attention import AttentionBackend
from model.attention.kv_cache import PagedKVCache
from model.attention.ragged import RaggedBatch
from model.attention.rope import inverse_frequencies, rotate, rotation
from model.config import MixtralConfig
from model.device.host_link import fetch
from model.linear import linear
from model.matrices.matrix import Make, Matrix
from model.matrices.packed import Packer
from model.routing import Dispatch, route

Forward = Generator[Dispatch, torch.Tensor, torch.Tensor]


class _Layer(NamedTuple):
    input_norm: torch.Tensor
    qkv: Matrix  # q, k and v stacked: one product instead of three
    out: Matrix
    post_norm: torch.Tensor
    gate: torch.Tensor


class Trunk:
    def __init__(self, config: MixtralConfig, tensors: Mapping[str, torch.Tensor], make: Make | None = None) -> None:
        """`tensors` holds everything outside `.experts.` under its HF name; `make` holds a matrix in another form. The
        gate keeps its own, because a small error there sends a token to another expert.
        """
        self.config, make = config, make or Packer().matrix
        own_head = not config.tie_word_embeddings  # a shared one stays, because it would be held twice
        lm_head = make(tensors["lm_head.weight"]) if own_head else None  # first: it is large, and little else is held
        self.embedding = tensors["model.embed_tokens.weight"]
        self.final_norm = tensors["model.norm.weight"]
        self.lm_head = lm_head or Matrix(lambda x_RD: linear(x_RD, self.embedding), 0)
        self.inv_freq = inverse_frequencies(config.head_dim, config.rope_theta, self.embedding.device)
        self.layers = [_layer(tensors, f"model.layers.{i}", make) for i in range(config.num_hidden_layers)]

    def forward(self, batch: RaggedBatch, cache: PagedKVCache, attention: AttentionBackend) -> Forward:
        """Run a batch: yield one `Dispatch` per layer, take [T, D] back, return fp32 logits [len(logit_rows), V]."""
        c = self.config
        x_TD = self.embedding[batch.token_ids_T]
        cos, sin = rotation(batch.positions_T, self.inv_freq, x_TD.dtype)
        prepared = attention.prepare(batch)
        heads, kv_heads = c.num_attention_heads, c.num_key_value_heads
        for i, layer in enumerate(self.layers):
            h_TD = rms_norm(x_TD, layer.input_norm, c.rms_norm_eps)
            qkv = layer.qkv(h_TD).view(-1, heads + 2 * kv_heads, c.head_dim)
            qk, v_TNd = qkv.split((heads + kv_heads, kv_heads), dim=1)
            q_THd, k_TNd = rotate(qk, cos, sin).split((heads, kv_heads), dim=1)
            cache.write(i, batch.kv_rows_T, k_TNd, v_TNd)
            attended = attention.attend(q_THd, cache, i, prepared)
            x_TD = x_TD + layer.out(attended.flatten(1))
            h_TD = rms_norm(x_TD, layer.post_norm, c.rms_norm_eps)
            experts_TK, weights_TK = route(linear(h_TD, layer.gate), c.num_experts_per_tok)
            x_TD = x_TD + (yield Dispatch(i, h_TD, experts_TK, weights_TK))
        last = rms_norm(x_TD[batch.logit_rows], self.final_norm, c.rms_norm_eps)
        return self.lm_head(last).float()

    def nbytes(self) -> int:
        """Bytes held; a tied output head counts once."""
        held: list[torch.Tensor | Matrix] = [self.embedding, self.final_norm, self.lm_head]
        for layer in self.layers:
            held += layer
        return sum(part.nbytes for part in held)


def rms_norm(x_TD: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm in fp32, rounded before the weight is applied (Zhang & Sennrich 2019; HF `MixtralRMSNorm`). On CUDA
    torch's own kernel computes it, which gives each row a block of the card; a plain mean sums in another order there
    at other row counts (below 16, on an H100). On a CPU both are equal bit for bit, and the plain one is faster.
    """
    x = x_TD.float()
    x = F.rms_norm(x, x.shape[-1:], eps=eps) if x.is_cuda else x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return weight_D * x.to(x_TD.dtype)


def _layer(tensors: Mapping[str, torch.Tensor], at: str, make: Make) -> _Layer:
    return _Layer(
        tensors[f"{at}.input_layernorm.weight"],
        make(torch.cat([tensors[f"{at}.self_attn.{p}_proj.weight"] for p in "qkv"])),
        make(tensors[f"{at}.self_attn.o_proj.weight"]),
        tensors[f"{at}.post_attention_layernorm.weight"],
        tensors[f"{at}.block_sparse_moe.gate.weight"],
    )


def watched(forward: Forward, place: list[str]) -> Forward:
    """The same generator; appends to `place` where a number first is not finite, for which it waits at every layer."""
    dispatch = next(forward)
    while True:
        _look(dispatch.x_TD, f"layer {dispatch.layer}, attention or what came into it", place)
        _look(dispatch.weights_TK, f"layer {dispatch.layer}, gate", place)
        total_TD = yield dispatch
        _look(total_TD, f"layer {dispatch.layer}, experts", place)
        try:
            dispatch = forward.send(total_TD)
        except StopIteration as end:
            logits: torch.Tensor = end.value
            return logits


def _look(values: torch.Tensor, name: str, place: list[str]) -> None:
    if not place:
        (finite,) = fetch(values.isfinite().all())
        if not bool(finite):
            place.append(name)
