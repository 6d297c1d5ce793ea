"""The checkpoint that is served, as clients see it: its id, tokenizer, limits and default sampling."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.policy.scheduling.limits import Limits
from cluster.settings.request_options import SAMPLING_RANGES
from model.batch import SamplingParams
from model.chat.calls import CallSyntax
from model.chat.formats import ChatFormat, chat_format
from model.checkpoint.folder import Checkpoint, eos_ids, generation_config
from model.text.tokenizer import Tokenizer

_WANTED = ["*.json", "*.jinja", "*.safetensors", "tokenizer.model"]  # of a repository on the hub
DEMO_FOLDER = Path(__file__).resolve().parents[2] / "model" / "demo"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """`id` is what requests name, or one of the `aliases`; `eos_ids` end an output; `default_sampling` fills absent
    sampling fields. `chat_format` turns conversations into ids, or is the reason why they cannot be served.
    """

    id: str
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    eos_ids: tuple[int, ...]
    default_sampling: SamplingParams
    chat_format: ChatFormat | str = "has no chat template"
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.id, *self.aliases)

    @property
    def chat(self) -> bool:
        return not isinstance(self.chat_format, str)

    @property
    def call_syntax(self) -> CallSyntax | None:
        """How the model calls tools; None if it cannot be told of any."""
        return None if isinstance(self.chat_format, str) else self.chat_format.calls

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
        folder, model_id = model_folder(path)
        return cls.of(folder, model_id, Checkpoint.open(folder), Tokenizer.load(folder))

    @classmethod
    def of(cls, folder: Path, model_id: str, checkpoint: Checkpoint, tokenizer: Tokenizer) -> "ServedModel":
        """Of a folder's parts; ValueError if they do not belong together."""
        config = checkpoint.config
        if tokenizer.vocab_size > config.vocab_size:
            raise ValueError(
                f"{folder}: {tokenizer.vocabulary.source} and added tokens have {tokenizer.vocab_size} pieces, but "
                f"config.json a vocabulary of {config.vocab_size}: they belong to different checkpoints"
            )
        ends = tokenizer.eos_ids(eos_ids(checkpoint))
        return cls(model_id, checkpoint, tokenizer, ends, _default_sampling(folder), chat_format(folder, tokenizer))


def model_folder(path: str) -> tuple[Path, str]:
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
        # Mistral's repositories hold the same weights twice: as Hugging Face's files, and consolidated.
        folder = Path(snapshot_download(hub_id, allow_patterns=_WANTED, ignore_patterns=["consolidated*"]))
        if any(folder.glob("*.safetensors")):
            return folder
        return Path(snapshot_download(hub_id, allow_patterns=_WANTED))
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
