"""A weight as integers of 4 bits with a scale for each group of inputs: what AWQ and GPTQ store, and what matrices in 4
bits are made of. E: outputs, D: inputs, G: groups of D / G inputs that lie side by side.

    weight[e, d] = (integer[e, d] - 8) * scale[e, g] + middle[e, g]    g = d * G // D

`middle` is what 8 stands for. With a zero z it is scale * (8 - z); for a scale of 16 bits that is exact in fp32, and so
is the weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from model.config import INT4_GROUPS

_BLOCK = 256  # outputs that are in fp32 at a time


@dataclass(frozen=True, slots=True, eq=False)
class Grouped:
    """`integer_ED` has a byte for each; scales and middles are fp32. `order_D` says which input each column is of, None
    where they are in order.
    """

    integer_ED: torch.Tensor
    scale_EG: torch.Tensor
    middle_EG: torch.Tensor
    order_D: torch.Tensor | None = None

    @classmethod
    def rounded(cls, weight_ED: torch.Tensor) -> "Grouped":
        """Nearest to a weight, with bf16 numbers for scales and middles; ValueError if no group divides its inputs."""
        outputs, inputs = weight_ED.shape
        group = next((size for size in INT4_GROUPS if inputs % size == 0), None)
        if group is None:
            raise ValueError(
                f"no 4-bit product here takes a matrix of {inputs} inputs: set experts.quantization to int8 or none"
            )
        integer_ED = torch.empty((outputs, inputs), dtype=torch.uint8, device=weight_ED.device)
        scale_EG = torch.empty((outputs, inputs // group), device=weight_ED.device)
        middle_EG = torch.empty_like(scale_EG)
        for part in _blocks(outputs):
            numbers = weight_ED[part].float().unflatten(1, (-1, group))
            least, most = numbers.amin(-1), numbers.amax(-1)
            scale_EG[part] = ((most - least) / 15).bfloat16()
            middle_EG[part] = (least + 8 * scale_EG[part]).bfloat16()
            step = torch.where(scale_EG[part] == 0, 1.0, scale_EG[part])
            integers = torch.round((numbers - middle_EG[part, :, None]) / step[..., None]) + 8
            integer_ED[part] = integers.clamp(0, 15).flatten(1)
        return cls(integer_ED, scale_EG, middle_EG)

    @classmethod
    def stacked(cls, parts: Sequence["Grouped"]) -> "Grouped":
        """One below the other; ValueError if their inputs are in different orders."""
        first, *others = parts
        if any(not _same(first.order_D, other.order_D) for other in others):
            raise ValueError(
                "GPTQ has put the inputs of matrices that are multiplied as one into different orders (desc_act): "
                "set experts.quantization to int8 or none"
            )
        return cls(
            torch.cat([part.integer_ED for part in parts]),
            torch.cat([part.scale_EG for part in parts]),
            torch.cat([part.middle_EG for part in parts]),
            first.order_D,
        )

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight [E, D], its inputs in the order of a row."""
        weight_ED = torch.empty(self.integer_ED.shape, dtype=dtype, device=self.integer_ED.device)
        columns = slice(None) if self.order_D is None else self.order_D
        for part in _blocks(len(weight_ED)):
            steps = self.integer_ED[part].float().unflatten(1, (self.scale_EG.shape[1], -1)) - 8
            numbers = steps * self.scale_EG[part, :, None] + self.middle_EG[part, :, None]
            weight_ED[part, columns] = numbers.flatten(1).to(dtype)
        return weight_ED


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is other if one is None or other is None else torch.equal(one, other)


def _blocks(outputs: int) -> list[slice]:
    return [slice(begin, begin + _BLOCK) for begin in range(0, outputs, _BLOCK)]
