"""The checkpoint that is served, as clients see it: its id, tokenizer, limits and default sampling."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.batch import SamplingParams
from model.checkpoint import Checkpoint
from model.tokenizer import Tokenizer

DEMO_FOLDER = Path(__file__).resolve().parent.parent / "model" / "demo"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """`id` is what requests name; `eos_ids` end an output; `default_sampling` fills absent sampling fields."""

    id: str
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    eos_ids: tuple[int, ...]
    default_sampling: SamplingParams

    @property
    def context_length(self) -> int:
        """The longest prompt and output together, in tokens."""
        return self.checkpoint.config.max_position_embeddings

    @classmethod
    def open(cls, path: str) -> "ServedModel":
        """Open a folder, `demo`, or a hub id; ValueError says what is wrong with it."""
        folder = _folder(path)
        checkpoint, tokenizer = Checkpoint.open(folder), Tokenizer.load(folder)
        config = checkpoint.config
        if tokenizer.vocab_size > config.vocab_size:
            raise ValueError(
                f"{folder}: tokenizer.model has {tokenizer.vocab_size} pieces, but config.json a vocabulary of "
                f"{config.vocab_size}: they belong to different checkpoints"
            )
        generation = _generation_config(folder)
        eos = generation.get("eos_token_id")
        eos_ids = set(config.eos_token_ids) | set(eos if isinstance(eos, list) else [] if eos is None else [eos])
        return cls(
            "demo" if folder == DEMO_FOLDER else folder.name if folder.exists() and path == str(folder) else path,
            checkpoint,
            tokenizer,
            tuple(sorted(eos_ids)),
            _default_sampling(generation),
        )


def _folder(path: str) -> Path:
    if path == "demo":
        return DEMO_FOLDER
    folder = Path(path).expanduser()
    if folder.exists() or path.startswith((".", "/", "~")) or path.count("/") != 1:
        return folder.resolve()
    return _from_hub(path)


def _from_hub(hub_id: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ValueError(
            f"{hub_id} is no folder here; to fetch it from the hub, pip install 'eightwinds[hub]'"
        ) from None
    try:
        patterns = ["*.json", "*.safetensors", "tokenizer.model"]
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except Exception as error:  # the library raises some twenty kinds, and each means the same here
        raise ValueError(f"{hub_id} is no folder here, and could not be fetched from the hub: {error}") from None


def _generation_config(folder: Path) -> dict[str, Any]:
    path = folder / "generation_config.json"
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from None
    return content if isinstance(content, dict) else {}


def _default_sampling(generation: dict[str, Any]) -> SamplingParams:
    keys = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    return SamplingParams(**{key: generation[key] for key in keys if generation.get(key) is not None})
