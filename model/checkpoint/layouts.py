"""Where the layouts of the family keep a tensor: HF's, the fused one of transformers 5, and Mistral's own.

transformers 5 holds the experts of a layer as one tensor, and writes it so with `save_original_format=False`. In
Mistral's layout two rows of a head that a rotation turns together stand side by side, in HF's half a head apart. The
first files of 8x7B (`.pt`) have the experts of a layer one below the other, w2 transposed.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from model.config import MixtralConfig

_EXPERT = re.compile(r"model\.layers\.(\d+)\.block_sparse_moe\.experts\.(\d+)\.(w[123])\.weight")
_MISTRAL = (  # parts of names in HF's layout and in Mistral's
    ("model.embed_tokens.", "tok_embeddings."),
    ("model.norm.", "norm."),
    ("lm_head.", "output."),
    ("model.layers.", "layers."),
    (".input_layernorm.", ".attention_norm."),
    (".post_attention_layernorm.", ".ffn_norm."),
    (".self_attn.q_proj.", ".attention.wq."),
    (".self_attn.k_proj.", ".attention.wk."),
    (".self_attn.v_proj.", ".attention.wv."),
    (".self_attn.o_proj.", ".attention.wo."),
    (".block_sparse_moe.", ".feed_forward."),
)


@dataclass(frozen=True, slots=True)
class Place:
    """A stored tensor of a `shape`, and how the model's is made of it: the part `index`, `transposed`; rows of so many
    `paired_heads` (0: none) put from pairs into halves.
    """

    name: str
    shape: tuple[int, ...]
    index: tuple[int | slice, ...] = ()
    transposed: bool = False
    paired_heads: int = 0


Layout = Callable[[str, tuple[int, ...]], Place]  # of a tensor's HF name and shape


def layout_of(stored: Collection[str], config: MixtralConfig) -> Layout:
    """The layout of a folder with tensors of these names."""
    if "tok_embeddings.weight" in stored:
        stacked = "layers.0.block_sparse_moe.w1" in stored
        return lambda name, shape: _mistral(name, shape, config, stacked)
    if "model.layers.0.mlp.experts.gate_up_proj" in stored:
        return lambda name, shape: _fused(name, shape, config.num_local_experts)
    return Place


def _fused(name: str, shape: tuple[int, ...], experts: int) -> Place:
    if not (expert := _EXPERT.fullmatch(name)):
        return Place(name.replace(".block_sparse_moe.", ".mlp."), shape)
    layer, number, kind = expert[1], int(expert[2]), expert[3]
    outputs, inputs = shape
    stem = f"model.layers.{layer}.mlp.experts"
    if kind == "w2":
        return Place(f"{stem}.down_proj", (experts, outputs, inputs), (number,))
    rows = slice(0, outputs) if kind == "w1" else slice(outputs, 2 * outputs)
    return Place(f"{stem}.gate_up_proj", (experts, 2 * outputs, inputs), (number, rows))


def _mistral(name: str, shape: tuple[int, ...], config: MixtralConfig, stacked: bool) -> Place:
    if stacked and (expert := _EXPERT.fullmatch(name)):
        layer, number, kind = expert[1], int(expert[2]), expert[3]
        hidden, inner = config.hidden_size, config.intermediate_size
        rows = slice(number * inner, (number + 1) * inner)
        whole = (config.num_local_experts * inner, hidden)
        return Place(f"layers.{layer}.block_sparse_moe.{kind}", whole, (rows,), transposed=kind == "w2")
    heads = {".q_proj.": config.num_attention_heads, ".k_proj.": config.num_key_value_heads}
    paired = next((count for part, count in heads.items() if part in name), 0)
    for theirs, ours in _MISTRAL[: -1 if stacked else None]:
        name = name.replace(theirs, ours)
    return Place(name, shape, paired_heads=paired)
