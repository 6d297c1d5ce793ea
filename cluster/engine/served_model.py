"""The checkpoint that is served, as clients see it: its id, tokenizer, limits and default sampling."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.policy.scheduling.limits import Limits
from cluster.settings.request_options import SAMPLING_RANGES
from model.batch import SamplingParams
from model.checkpoint.folder import Checkpoint, eos_ids, generation_config
from model.text.chat_template import chat_refusal
from model.text.tokenizer import Tokenizer

DEMO_FOLDER = Path(__file__).resolve().parents[2] / "model" / "demo"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """`id` is what requests name, or one of the `aliases`; `eos_ids` end an output; `default_sampling` fills absent
    sampling fields.
    `chat_refusal` says why conversations cannot be served although the vocabulary is Mixtral's, "" if they can.
    """

    id: str
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    eos_ids: tuple[int, ...]
    default_sampling: SamplingParams
    chat_refusal: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.id, *self.aliases)

    @property
    def chat(self) -> bool:
        return self.tokenizer.supports_chat and not self.chat_refusal

    def capacity(self, limits: Limits) -> str:
        """The capacity of a KV cache, in a line for the operator."""
        whole = limits.page_count // limits.pages_of(self.context_length)
        tokens = limits.page_count * limits.page_size
        line = f"KV cache: {tokens:,} tokens, {whole} whole contexts of {self.context_length:,}"
        return line if whole else f"{line}: longer requests are refused; raise kv.memory_bytes"

    @property
    def context_length(self) -> int:
        """The longest prompt and output together, in tokens."""
        return self.checkpoint.config.max_position_embeddings

    @classmethod
    def open(cls, path: str) -> "ServedModel":
        """Open a folder, `demo`, or a hub id; ValueError says what is wrong with it."""
        folder, model_id = _folder(path)
        checkpoint, tokenizer = Checkpoint.open(folder), Tokenizer.load(folder)
        config = checkpoint.config
        if tokenizer.vocab_size > config.vocab_size:
            raise ValueError(
                f"{folder}: tokenizer.model has {tokenizer.vocab_size} pieces, but config.json a vocabulary of "
                f"{config.vocab_size}: they belong to different checkpoints"
            )
        refusal = chat_refusal(folder, tokenizer.vocab_size)
        return cls(model_id, checkpoint, tokenizer, eos_ids(checkpoint), _default_sampling(folder), refusal)


def _folder(path: str) -> tuple[Path, str]:
    """The checkpoint's folder, and what requests name it by: `demo`, the folder's name, or the hub id."""
    if path == "demo":
        return DEMO_FOLDER, "demo"
    folder = Path(path).expanduser()
    if folder.exists() or path.startswith((".", "/", "~")) or path.count("/") != 1:
        return folder.resolve(), folder.resolve().name
    return _from_hub(path), path


def _from_hub(hub_id: str) -> Path:
    problem = f"{hub_id} is no folder here"
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ValueError(f"{problem}; to fetch it from the hub, pip install 'eightwinds[hub]'") from None
    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.jinja", "*.safetensors", "tokenizer.model"]))
    except Exception as error:  # the library raises some twenty kinds, and each means the same here
        raise ValueError(f"{problem}, and could not be fetched from the hub: {error}") from None


def _default_sampling(folder: Path) -> SamplingParams:
    generation = generation_config(folder)
    given: dict[str, Any] = {}
    for key, good, text in SAMPLING_RANGES:
        if (value := generation.get(key)) is None:
            continue
        kind = int if isinstance(getattr(SamplingParams(), key), int) else int | float
        if not isinstance(value, kind) or isinstance(value, bool) or not good(value):
            raise ValueError(f"{folder / 'generation_config.json'}: {key} is {value!r}, but {text}")
        given[key] = value
    return SamplingParams(**given)
