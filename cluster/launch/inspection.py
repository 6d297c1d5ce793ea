"""`eightwinds inspect`: what a checkpoint's folder is, what each actor would hold, and what would be refused."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cluster.engine.served_model import ServedModel, model_folder
from cluster.launch.specs import actor_bytes, experts_form, served_dtype
from cluster.settings.config import Config
from model.chat.formats import ChatFormat, chat_format
from model.checkpoint.folder import Checkpoint
from model.text.tokenizer import Tokenizer

T = TypeVar("T")


@dataclass(slots=True)
class Inspection:
    """Numbers of bytes are as served with the configuration; `refusals` say what to change, and are empty where the
    folder can be served. A part that could not be read is left out.
    """

    folder: str
    family: str = ""
    layers: int = 0
    hidden_size: int = 0
    experts: int = 0
    experts_per_token: int = 0
    context_length: int = 0
    parameters: int = 0
    stored_bytes: int = 0
    stored_as: str = ""
    served_as: str = ""
    experts_served_as: str = ""
    head_bytes: int = 0
    expert_bytes: int = 0
    vocabulary: str = ""
    vocabulary_size: int = 0
    added_tokens: list[str] = field(default_factory=list)
    eos_token_ids: list[int] = field(default_factory=list)
    chat: str = ""
    tools: str = ""
    refusals: list[str] = field(default_factory=list)

    def rows(self) -> list[tuple[str, str]]:
        """For people: what is known, with a name."""
        rows = [("folder", self.folder)]
        if self.family:
            sizes = (
                f"{self.layers} layers of {self.hidden_size}, {self.experts} experts, {self.experts_per_token} a token"
            )
            rows += [("model", f"{self.family}: {sizes}, {self.parameters / 1e6:,.1f} M parameters")]
            rows += [("context", f"{self.context_length:,} tokens")]
            rows += [("stored", f"{size_words(self.stored_bytes)}, {self.stored_as}")]
        if self.head_bytes:
            rows += [("head", f"holds {size_words(self.head_bytes)} in {self.served_as}, and the KV cache")]
            rows += [("each expert", f"holds {size_words(self.expert_bytes)} in {self.experts_served_as}")]
        if self.vocabulary:
            names = ", ".join(self.added_tokens[:8]) + (" ..." if len(self.added_tokens) > 8 else "")
            added = f", {len(self.added_tokens)} of them added: {names}" if self.added_tokens else ""
            rows += [("vocabulary", f"{self.vocabulary}: {self.vocabulary_size:,} tokens{added}")]
            if self.eos_token_ids:
                rows += [("ends", f"outputs end with {', '.join(map(str, self.eos_token_ids))}")]
            rows += [("chat", self.chat), ("tools", self.tools)]
        return rows + [("refused", text) for text in self.refusals]


def inspect(config: Config) -> Inspection:
    """Everything that can be told without loading a tensor; a fault ends only the part that it is in."""
    folder, model_id = model_folder(config.model.path)
    found = Inspection(str(folder))
    checkpoint = _part(found, lambda: Checkpoint.open(folder))
    if checkpoint is not None:
        _sizes(found, config, checkpoint)
    tokenizer = _part(found, lambda: Tokenizer.load(folder))
    if tokenizer is not None:
        _text(found, folder, tokenizer)
    if checkpoint is not None and tokenizer is not None:
        served = _part(found, lambda: ServedModel.of(folder, model_id, checkpoint, tokenizer))
        found.eos_token_ids = list(served.eos_ids) if served is not None else []
    return found


def run(config: Config, as_json: bool) -> int:
    """Print it; 0 if the folder can be served."""
    found = inspect(config)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    else:
        for name, text in found.rows():
            print(f"{name:12}  {text}")
    return 1 if found.refusals else 0


def size_words(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _part(found: Inspection, work: Callable[[], T]) -> T | None:
    try:
        return work()
    except (ValueError, OSError) as error:
        found.refusals.append(str(error))
        return None


def _sizes(found: Inspection, config: Config, checkpoint: Checkpoint) -> None:
    model = checkpoint.config
    found.family, found.layers, found.hidden_size = "Mixtral", model.num_hidden_layers, model.hidden_size
    found.experts, found.experts_per_token = model.num_local_experts, model.num_experts_per_tok
    found.context_length = model.max_position_embeddings
    found.parameters = sum(math.prod(tensor.shape) for tensor in checkpoint.tensors.values())
    found.stored_bytes = checkpoint.nbytes(list(checkpoint.tensors))
    found.stored_as = checkpoint.config.dtype if checkpoint.packing is None else f"4 bits ({checkpoint.packing.method})"
    found.served_as = served_dtype(config, checkpoint)
    if (form := _part(found, lambda: experts_form(config, checkpoint))) is not None:
        found.experts_served_as = found.served_as if form == "none" else form
        found.head_bytes, found.expert_bytes = actor_bytes(config, checkpoint)


def _text(found: Inspection, folder: Path, tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.vocabulary
    found.vocabulary, found.vocabulary_size = vocabulary.source, tokenizer.vocab_size
    found.added_tokens = [tokenizer.name_of(i) for i in range(len(vocabulary.names), tokenizer.vocab_size)]
    form: Any = _part(found, lambda: chat_format(folder, tokenizer))
    if isinstance(form, ChatFormat):
        found.chat = form.name
        found.tools = f"called as {form.calls} does" if form.calls else "none: a request that has some is refused"
    elif form is not None:
        found.chat, found.tools = f"none: {form}", "none"
