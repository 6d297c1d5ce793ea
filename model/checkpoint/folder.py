"""A checkpoint folder's settings and headers: no tensor is loaded and torch is not imported."""

import hashlib
import json
import math
import struct
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.config import DTYPES, MixtralConfig, read_json, refuse_pointer

_DTYPE_BYTES = {"F32": 4, "BF16": 2, "F16": 2}
_STORED_AS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_OTHER_FORMATS = (  # looked for in this order: files, their format, and how to get a checkpoint that can be read
    ("consolidated*", "Mistral's own layout", "fetch the HF layout (hf download mistralai/Mixtral-8x7B-v0.1)"),
    ("pytorch_model*.bin", "PyTorch's pickle format", "save it again by save_pretrained(..., safe_serialization=True)"),
    ("*.gguf", "llama.cpp's format", "fetch the checkpoint it was made from"),
)
_IGNORED = ("rotary_emb.inv_freq",)  # a buffer in old exports, which every reader recomputes
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_BLOCK = 4096  # bytes of each tensor that go into the digest


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One stored tensor; `dtype` is safetensors' name of it."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint; `digest` of its content tells a restarted server whether running actors hold it."""

    folder: Path
    config: MixtralConfig
    tensors: Mapping[str, TensorEntry]
    digest: str

    @classmethod
    def open(cls, folder: Path) -> "Checkpoint":
        """Verify a folder; ValueError names the file and key of the first fault."""
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder: give the folder of a checkpoint in HF layout")
        config = MixtralConfig.load(folder)
        found: dict[str, TensorEntry] = {}
        digest = hashlib.sha256((folder / "config.json").read_bytes())
        for file in _files(folder):
            for block in _read(file, found):
                digest.update(block)
        tensors = _match(folder, config, found)
        named = read_json(folder / "config.json")
        if not (named.get("dtype") or named.get("torch_dtype")):
            stored = Counter[str]()  # in bytes: a few tensors (norms, gates) may have a finer dtype than the rest
            for tensor in tensors.values():
                stored[tensor.dtype] += tensor.nbytes
            config = replace(config, dtype=max(DTYPES, key=lambda name: stored[_STORED_AS[name]]))
        return cls(folder, config, tensors, digest.hexdigest())

    def head_names(self) -> list[str]:
        return [name for name in self.tensors if ".experts." not in name]

    def expert_names(self, expert: int) -> list[str]:
        return [name for name in self.tensors if f".experts.{expert}." in name]

    def nbytes(self, names: list[str]) -> int:
        return sum(self.tensors[name].nbytes for name in names)

    def held_bytes(self, dtype: str, names: Collection[str] | None = None) -> int:
        """Of these tensors in a dtype; of all of them without names."""
        chosen = self.tensors if names is None else names
        return sum(math.prod(self.tensors[name].shape) for name in chosen) * dtype_bytes(dtype)


def generation_config(folder: Path) -> dict[str, Any]:
    """generation_config.json, or {} without one; ValueError if it is no JSON. A `top_k` of -1 becomes 0, as both keep
    all.
    """
    path = folder / "generation_config.json"
    if not path.exists():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        return {}
    return content | {"top_k": 0} if content.get("top_k") == -1 else content


def eos_ids(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Ids that end an output, of config.json and generation_config.json together; ValueError if one is no id."""
    eos = generation_config(checkpoint.folder).get("eos_token_id")
    ids = {*checkpoint.config.eos_token_ids, *(eos if isinstance(eos, list) else [] if eos is None else [eos])}
    for token in ids:
        if not isinstance(token, int) or not 0 <= token < checkpoint.config.vocab_size:
            raise ValueError(
                f"{checkpoint.folder}: eos_token_id {token!r} is none of the {checkpoint.config.vocab_size} token ids"
            )
    return tuple(sorted(ids))


def dtype_bytes(dtype: str) -> int:
    return _DTYPE_BYTES[_STORED_AS[dtype]]


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


def _files(folder: Path) -> list[Path]:
    index, single = folder / _INDEX, folder / _SINGLE
    if single.exists():  # first, as HF looks
        return [single]
    if not index.exists():
        for pattern, what, advice in _OTHER_FORMATS:
            if other := next(iter(sorted(folder.glob(pattern))), None):
                raise ValueError(f"{folder} has {other.name}, which is {what}; only safetensors are read: {advice}")
        raise ValueError(f"{folder} has neither {_SINGLE} nor {_INDEX}: the weights are missing")
    refuse_pointer(index)
    try:
        names = sorted({str(Path(shard)) for shard in read_json(index)["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{index} is not a safetensors index (no weight_map): copy it again") from None
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f"{index.name} names {name}, which is not in {folder}: copy the missing shard")
    return [folder / name for name in names]


def _read(file: Path, found: dict[str, TensorEntry]) -> Iterator[bytes]:
    """Enter a file's tensors into `found`. Yields what goes into the digest: the header, and a block from the middle of
    every tensor, enough to tell two trainings of one architecture apart.
    """
    refuse_pointer(file)
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if 8 + length > size:
            raise ValueError(f"{file.name} is truncated: its header does not fit in {size} bytes; copy it again")
        try:
            header = json.loads(stream.read(length))
        except ValueError:
            header = None
        if not isinstance(header, dict):
            raise ValueError(f"{file.name} is not a safetensors file: its header is no JSON object")
        header.pop("__metadata__", None)
        yield json.dumps(header, sort_keys=True).encode()
        for entry in _entries(file, header, 8 + length, size):
            if entry.name in found:
                raise ValueError(f"{file.name}: tensor {entry.name} is also in {found[entry.name].file.name}")
            found[entry.name] = entry
        for name in sorted(header):
            begin, end = header[name]["data_offsets"]
            stream.seek(8 + length + max(begin, (begin + end - _BLOCK) // 2))
            yield stream.read(min(_BLOCK, end - begin))


def _entries(file: Path, header: Mapping[str, Any], start: int, size: int) -> Iterator[TensorEntry]:
    described = start
    for name, info in header.items():
        try:
            dtype, shape, (begin, end) = info["dtype"], tuple(info["shape"]), info["data_offsets"]
            sound = all(isinstance(number, int) and number >= 0 for number in (*shape, begin, end))
            width = _DTYPE_BYTES.get(dtype)  # None: `_match` refuses it by name if the tensor is one of ours
            sound &= end >= begin and (width is None or end - begin == math.prod(shape) * width)
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise ValueError(f"{file.name}: the header entry of {name} is damaged; copy the file again") from None
        if start + end > size:
            raise ValueError(
                f"{file.name} is truncated: tensor {name} ends at byte {start + end}, the file at {size}; copy it again"
            )
        described += end - begin
        yield TensorEntry(name, file, dtype, shape, end - begin)
    if described != size:
        raise ValueError(f"{file.name}: its header describes {described} bytes, it has {size}; copy it again")


def _match(folder: Path, config: MixtralConfig, found: dict[str, TensorEntry]) -> dict[str, TensorEntry]:
    expected = expected_shapes(config)
    where = _SINGLE if (folder / _SINGLE).exists() else _INDEX
    matched: dict[str, TensorEntry] = {}
    for name, shape in expected.items():
        entry = found.pop(name, None)
        if entry is None:
            raise ValueError(f"{where}: tensor {name} is missing; the checkpoint does not match its config.json")
        if entry.shape != shape:
            raise ValueError(
                f"{entry.file.name}: tensor {name} has shape {list(entry.shape)}, config.json asks for {list(shape)}"
            )
        if entry.dtype not in _DTYPE_BYTES:
            raise ValueError(
                f"{entry.file.name}: tensor {name} is stored as {entry.dtype}; only F32, BF16 and F16 can be served"
            )
        matched[name] = entry
    if config.tie_word_embeddings:
        found.pop("lm_head.weight", None)  # some exporters write the tied matrix a second time
    for name, entry in found.items():
        if not name.endswith(_IGNORED):
            raise ValueError(f"{entry.file.name}: unexpected tensor {name}; config.json has no place for it")
    return matched
