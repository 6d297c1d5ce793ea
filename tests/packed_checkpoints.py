"""Checkpoints of AWQ and GPTQ: random weights rounded to 4 bits and packed as the tools of both do it, and what their
integers stand for, computed before anything is packed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.checkpoints import random_weights, tiny, write

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
IN_ORDER = tuple(range(8))


@dataclass(frozen=True)
class Rounded:
    """A matrix [E, D]: integers, the group of each input, and by group the zeros [E, G] and scales (fp16)."""

    integer_ED: torch.Tensor
    group_D: torch.Tensor
    zero_EG: torch.Tensor
    scale_EG: torch.Tensor

    def dense(self) -> torch.Tensor:
        """The numbers that it stands for, exact in fp32."""
        zero_ED, scale_ED = self.zero_EG[:, self.group_D], self.scale_EG[:, self.group_D]
        return (self.integer_ED - zero_ED).float() * scale_ED.float()


@dataclass(frozen=True)
class Way:
    """How a folder is packed. `order` shuffles inputs over groups, as GPTQ's desc_act does; a `group` of 0 has all."""

    method: str
    group: int
    sym: bool = False
    v2: bool = False
    order: bool = False

    def settings(self) -> dict[str, Any]:
        """`quantization_config`, with keys as AutoAWQ and GPTQModel write them."""
        group = self.group or -1
        if self.method == "awq":
            keys = {"zero_point": True, "version": "gemm", "modules_to_not_convert": ["gate"]}
            return {"quant_method": "awq", "bits": 4, "group_size": group} | keys
        keys = {"desc_act": self.order, "sym": self.sym, "true_sequential": True, "damp_percent": 0.1}
        keys |= {"checkpoint_format": "gptq_v2"} if self.v2 else {}
        return {"quant_method": "gptq", "bits": 4, "group_size": group} | keys

    def rounded(self, weight_ED: torch.Tensor, seed: int = 0) -> Rounded:
        inputs = weight_ED.shape[1]
        size = self.group or inputs
        group_D = torch.arange(inputs) // size
        if self.order:
            group_D = group_D[torch.randperm(inputs, generator=torch.Generator().manual_seed(seed))]
        numbers_EGS = weight_ED.float()[:, torch.argsort(group_D, stable=True)].unflatten(1, (-1, size))
        least, most = numbers_EGS.amin(-1).clamp(max=0), numbers_EGS.amax(-1).clamp(min=0)
        if self.sym:
            scale_EG = (torch.maximum(-least, most) / 7.5).half()
            zero_EG = torch.full(scale_EG.shape, 8)
        else:
            scale_EG = ((most - least) / 15).half()
            zero_EG = torch.round(-least / scale_EG.float()).long().clamp(0, 15)
        steps_ED = weight_ED.float() / scale_EG[:, group_D].float()
        integer_ED = (torch.round(steps_ED).long() + zero_EG[:, group_D]).clamp(0, 15)
        return Rounded(integer_ED, group_D, zero_EG, scale_EG)

    def packed(self, matrix: Rounded) -> dict[str, torch.Tensor]:
        """The tensors that are stored of it, by the last part of their names."""
        scales = matrix.scale_EG.t().contiguous()
        if self.method == "awq":
            qweight = wrapped(eights(matrix.integer_ED.t(), AWQ_ORDER))
            return {"qweight": qweight, "qzeros": wrapped(eights(matrix.zero_EG.t(), AWQ_ORDER)), "scales": scales}
        qzeros = wrapped(eights(matrix.zero_EG.t(), IN_ORDER) - (0 if self.v2 else 0x11111111))
        qweight = wrapped(eights(matrix.integer_ED, IN_ORDER).t())
        return {"qweight": qweight, "qzeros": qzeros, "scales": scales, "g_idx": matrix.group_D.int()}


def eights(values: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """Integers [.., 8 n] as n sums: the first of `order` in the lowest 4 bits."""
    eight = values.long().unflatten(-1, (-1, 8))
    total = torch.zeros(eight.shape[:-1], dtype=torch.int64)
    for nibble, place in enumerate(order):
        total += eight[..., place] * 16**nibble
    return total


def wrapped(sums: torch.Tensor) -> torch.Tensor:
    """Numbers of up to 32 bits as signed ones."""
    return ((sums + 2**31) % 2**32 - 2**31).to(torch.int32).contiguous()


def packable(**changes: Any) -> dict[str, Any]:
    """The `config.json` of a model whose matrices all have whole groups of 128."""
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 16, "num_key_value_heads": 4}
    return tiny(**sizes, num_local_experts=4, dtype=None, torch_dtype="float16") | changes


def write_packed(
    folder: Path, way: Way, content: Mapping[str, Any] | None = None, shards: int = 1, std: float = 0.1
) -> dict[str, torch.Tensor]:
    """Write a checkpoint whose experts and attention are packed. Returns what all its tensors stand for, in fp32."""
    content = packable() if content is None else content
    stored, stands_for = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for name, tensor in random_weights(content, std=std).items():
        stem = name.removesuffix(".weight")
        if ".experts." not in name and ".self_attn." not in name:
            stored[name], stands_for[name] = tensor, tensor.float()
            continue
        layer = int(name.split(".")[2])
        matrix = way.rounded(tensor, seed=layer)  # w1 and w3 see the same inputs, and get the same order
        stands_for[name] = matrix.dense()
        stored |= {f"{stem}.{part}": packed for part, packed in way.packed(matrix).items()}
    write(folder, dict(content) | {"quantization_config": way.settings()}, stored, shards)
    return stands_for
