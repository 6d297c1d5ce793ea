"""The tensors that a model of the family asks for, and which stored ones each of them is read from."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from model.checkpoint.files import FLOATS, INTEGERS, StoredTensor
from model.checkpoint.layouts import Place, layout_of
from model.checkpoint.packing import Packing
from model.config import MixtralConfig

_IGNORED = ("rotary_emb.inv_freq",)  # a buffer in old exports, which every reader recomputes


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor that the model asks for, under its HF name, and what is stored of it: one tensor ("weight"), of which it
    is what `place` says, or the parts of a matrix in 4 bits by the last part of their names, packed as `packing` says.
    """

    name: str
    shape: tuple[int, ...]
    place: Place
    stored: Mapping[str, StoredTensor]
    packing: Packing | None = None

    @property
    def nbytes(self) -> int:
        """As it is stored."""
        if self.place.index:
            return math.prod(self.shape) * FLOATS[self.dtype]
        return sum(part.nbytes for part in self.stored.values())

    @property
    def dtype(self) -> str:
        """Safetensors' name of the numbers that it is, or is scaled by."""
        return self.stored["scales" if self.packing else "weight"].dtype

    @property
    def file(self) -> Path:
        return next(iter(self.stored.values())).file


def expected_shapes(config: MixtralConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the architecture with its shape, `[out, in]` for matrices (HF names)."""
    hidden, inner = config.hidden_size, config.intermediate_size
    q_dim = config.num_attention_heads * config.head_dim
    kv_dim = config.num_key_value_heads * config.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "self_attn.q_proj": (q_dim, hidden),
        "self_attn.k_proj": (kv_dim, hidden),
        "self_attn.v_proj": (kv_dim, hidden),
        "self_attn.o_proj": (hidden, q_dim),
        "block_sparse_moe.gate": (config.num_local_experts, hidden),
    }
    for expert in range(config.num_local_experts):
        for name, shape in {"w1": (inner, hidden), "w2": (hidden, inner), "w3": (inner, hidden)}.items():
            layer[f"block_sparse_moe.experts.{expert}.{name}"] = shape
    shapes = {"model.embed_tokens.weight": (config.vocab_size, hidden), "model.norm.weight": (hidden,)}
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    for i in range(config.num_hidden_layers):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    return shapes


class Matching:
    """Finds what is stored of every tensor that a configuration asks for; ValueError names one that is missing,
    unexpected or another than expected. `settings` is the file of the configuration, `where` the one that would have to
    name a missing tensor.
    """

    def __init__(
        self,
        config: MixtralConfig,
        packing: Packing | None,
        stored: Mapping[str, StoredTensor],
        settings: str,
        where: str,
    ) -> None:
        self._config, self._packing, self._stored = config, packing, stored
        self._settings, self._where = settings, where

    def entries(self) -> dict[str, TensorEntry]:
        layout = layout_of(self._stored, self._config)
        shapes = expected_shapes(self._config)
        entries = {name: self._entry(name, shape, layout(name, shape)) for name, shape in shapes.items()}
        used = {part.name for entry in entries.values() for part in entry.stored.values()}
        if self._config.tie_word_embeddings:  # some exporters write the tied matrix a second time
            used.add(layout("lm_head.weight", shapes["model.embed_tokens.weight"]).name)
        for name, stored in self._stored.items():
            if name not in used and not name.endswith(_IGNORED):
                problem = f"unexpected tensor {name}; {self._settings} has no place for it"
                raise ValueError(f"{stored.file.name}: {problem}")
        return entries

    def _entry(self, name: str, shape: tuple[int, ...], place: Place) -> TensorEntry:
        """Whether a matrix is packed is what the files say."""
        stem = place.name.removesuffix(".weight")
        packed = self._stored.get(f"{stem}.qweight")
        if place.name in self._stored or packed is None:
            return TensorEntry(name, shape, place, {"weight": self._found(place.name, place.shape, FLOATS)})
        if self._packing is None:
            raise ValueError(
                f"{packed.file.name}: tensor {packed.name} is packed, but {self._settings} has no quantization_config: "
                "put the content of quant_config.json or quantize_config.json there, with quant_method"
            )
        outputs, inputs = shape
        if problem := self._packing.problem(outputs, inputs):
            raise ValueError(f"{self._settings}: quantization_config.group_size does not suit {stem}: {problem}")
        return TensorEntry(name, shape, place, dict(self._parts(stem, outputs, inputs, self._packing)), self._packing)

    def _parts(self, stem: str, outputs: int, inputs: int, packing: Packing) -> Iterator[tuple[str, StoredTensor]]:
        for part, shape in packing.parts(outputs, inputs).items():
            yield part, self._found(f"{stem}.{part}", shape, FLOATS if part == "scales" else INTEGERS)
        if (bias := f"{stem}.bias") in self._stored:  # AutoGPTQ writes zeros; that they are is seen when it is read
            yield "bias", self._found(bias, (outputs,), FLOATS)

    def _found(self, name: str, shape: tuple[int, ...], dtypes: Mapping[str, int]) -> StoredTensor:
        stored = self._stored.get(name)
        if stored is None:
            problem = f"tensor {name} is missing; the checkpoint does not match its {self._settings}"
            raise ValueError(f"{self._where}: {problem}")
        if stored.shape != shape:
            problem = f"tensor {name} has shape {list(stored.shape)}, {self._settings} asks for {list(shape)}"
            raise ValueError(f"{stored.file.name}: {problem}")
        if stored.dtype not in dtypes:
            names = " and ".join(", ".join(dtypes).rsplit(", ", 1))
            problem = f"tensor {name} is stored as {stored.dtype}; only {names} can be served"
            raise ValueError(f"{stored.file.name}: {problem}")
        return stored
