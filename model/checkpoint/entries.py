"""The tensors that a model of the family asks for, and which stored ones each of them is read from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from model.checkpoint.files import FLOATS, INTEGERS, StoredTensor
from model.checkpoint.packing import Packing
from model.config import MixtralConfig

_IGNORED = ("rotary_emb.inv_freq",)  # a buffer in old exports, which every reader recomputes
_WEIGHT = ".weight"


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor that the model asks for, under its HF name, and what is stored of it: itself ("weight"), or the parts of
    a matrix in 4 bits by the last part of their names, packed as `packing` says.
    """

    name: str
    shape: tuple[int, ...]
    stored: Mapping[str, StoredTensor]
    packing: Packing | None = None

    @property
    def nbytes(self) -> int:
        """As it is stored."""
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


def match(
    config: MixtralConfig, packing: Packing | None, found: Mapping[str, StoredTensor], where: str
) -> dict[str, TensorEntry]:
    """An entry for every expected tensor; ValueError names one that is missing, unexpected or another than expected.
    `where` is the file that would have to name a missing one. Whether a matrix is packed is what the files say.
    """
    matched: dict[str, TensorEntry] = {}
    for name, shape in expected_shapes(config).items():
        matched[name] = _entry(name, shape, packing, found, where)
    used = {part.name for entry in matched.values() for part in entry.stored.values()}
    if config.tie_word_embeddings:
        used.add("lm_head.weight")  # some exporters write the tied matrix a second time
    for name, stored in found.items():
        if name not in used and not name.endswith(_IGNORED):
            raise ValueError(f"{stored.file.name}: unexpected tensor {name}; config.json has no place for it")
    return matched


def _entry(
    name: str, shape: tuple[int, ...], packing: Packing | None, found: Mapping[str, StoredTensor], where: str
) -> TensorEntry:
    stem = name.removesuffix(_WEIGHT)
    if name in found or f"{stem}.qweight" not in found:
        return TensorEntry(name, shape, {"weight": _checked(name, shape, FLOATS, found, where)})
    if packing is None:
        raise ValueError(
            f"{found[f'{stem}.qweight'].file.name}: tensor {stem}.qweight is packed, but config.json has no "
            "quantization_config: put the content of quant_config.json or quantize_config.json there, with quant_method"
        )
    outputs, inputs = shape
    if problem := packing.problem(outputs, inputs):
        raise ValueError(f"config.json: quantization_config.group_size does not suit {stem}: {problem}")
    return TensorEntry(name, shape, dict(_parts(stem, outputs, inputs, packing, found, where)), packing)


def _parts(
    stem: str, outputs: int, inputs: int, packing: Packing, found: Mapping[str, StoredTensor], where: str
) -> Iterator[tuple[str, StoredTensor]]:
    for part, shape in packing.parts(outputs, inputs).items():
        dtypes = FLOATS if part == "scales" else INTEGERS
        yield part, _checked(f"{stem}.{part}", shape, dtypes, found, where)
    if (bias := f"{stem}.bias") in found:  # AutoGPTQ writes one of zeros; that it is of zeros is seen when it is read
        yield "bias", _checked(bias, (outputs,), FLOATS, found, where)


def _checked(
    name: str, shape: tuple[int, ...], dtypes: Mapping[str, int], found: Mapping[str, StoredTensor], where: str
) -> StoredTensor:
    stored = found.get(name)
    if stored is None:
        raise ValueError(f"{where}: tensor {name} is missing; the checkpoint does not match its config.json")
    if stored.shape != shape:
        raise ValueError(
            f"{stored.file.name}: tensor {name} has shape {list(stored.shape)}, config.json asks for {list(shape)}"
        )
    if stored.dtype not in dtypes:
        *others, last = dtypes
        names = f"{', '.join(others)} and {last}" if others else last
        raise ValueError(f"{stored.file.name}: tensor {name} is stored as {stored.dtype}; only {names} can be served")
    return stored
