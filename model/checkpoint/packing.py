"""How a folder of AWQ or GPTQ packs its matrices in 4 bits: `quantization_config` of config.json.

Eight integers are packed into one of 32 bits. AWQ packs along the outputs, in an order of its own; GPTQ packs along the
inputs, and its zeros along the outputs. A group of inputs has a scale and a zero for each output:

    weight = (integer - zero) * scale
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PACKED = 8  # integers in one of 32 bits
_ADVICE = (
    "use a folder of 4 bits by AWQ (version gemm) or GPTQ, or the unquantized checkpoint, which "
    "experts.quantization=int4 holds in 4 bits, too"
)


@dataclass(frozen=True, slots=True)
class Packing:
    """`group` inputs share a scale, 0: all of a matrix. `below` is what is taken off a zero before it is stored."""

    method: str  # awq or gptq
    group: int
    below: int = 0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Packing | None":
        """Of what config.json holds, None without quantization; ValueError names a key that cannot be served."""
        raw = config.get("quantization_config")
        if not raw:
            return None
        if not isinstance(raw, Mapping):
            raise ValueError(f"quantization_config is {raw!r}, but must be an object or null")
        method = raw.get("quant_method")
        allowed = _ALLOWED.get(method) if isinstance(method, str) else None
        if allowed is None:
            raise ValueError(f"quantization_config.quant_method is {method!r}, which cannot be served: {_ADVICE}")
        for key, values in allowed.items():
            value = raw.get(key, values[0])
            if (value.lower() if isinstance(value, str) else value) not in values:
                raise ValueError(f"quantization_config.{key} is {value!r}, which cannot be served: {_ADVICE}")
        group = raw.get("group_size", 128)
        if isinstance(group, bool) or not isinstance(group, int) or not (group == -1 or group >= 1):
            raise ValueError(f"quantization_config.group_size is {group!r}, but must be -1 or at least 1")
        below = int(method == "gptq" and raw.get("checkpoint_format", "gptq") == "gptq")
        return cls(str(method), max(group, 0), below)

    def parts(self, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        """The tensors of a matrix, by the last part of their names, with their shapes."""
        groups = inputs // (self.group or inputs)
        packed = {"awq": (inputs, outputs // _PACKED), "gptq": (inputs // _PACKED, outputs)}[self.method]
        parts: dict[str, tuple[int, ...]] = {"qweight": packed, "qzeros": (groups, outputs // _PACKED)}
        return parts | {"scales": (groups, outputs)} | ({"g_idx": (inputs,)} if self.method == "gptq" else {})

    def problem(self, outputs: int, inputs: int) -> str:
        """Why a matrix of these sizes cannot be packed so, or ""."""
        if inputs % (self.group or inputs) or inputs % _PACKED or outputs % _PACKED:
            return f"{inputs} inputs and {outputs} outputs are no whole groups of {self.group or inputs} and {_PACKED}"
        return ""


# By method: keys, and the values of each that can be served; the first is what a config without the key means.
_ALLOWED: Mapping[str, Mapping[str, tuple[object, ...]]] = {
    "awq": {"bits": (4,), "version": ("gemm",), "zero_point": (True,)},
    "gptq": {"bits": (4,), "checkpoint_format": ("gptq", "gptq_v2"), "is_marlin_format": (False,)},
}
