"""The form in which a checkpoint reads conversations: its own template, else Mistral's for Mistral's vocabularies."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from model.chat.calls import HERMES, MISTRAL, CallSyntax
from model.chat.conversation import Conversation
from model.chat.mistral import Mark, Stretch, v1, v3
from model.chat.template import Template
from model.chat.trial import attempt
from model.text.text_files import TextFiles
from model.text.tokenizer import Tokenizer

_START = ["<unk>", "<s>", "</s>"]
_V3_MARKS = (
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
)
_V1_SIZE, _V3_SIZE = 32_000, 32_768


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """`ids` of a conversation; ValueError names the message and what to change. `calls` is how the model writes calls
    of tools, None where it is told of none. `source` is the template, "" for one of Mistral's; `name` is for operators.
    """

    name: str
    ids: Callable[[Conversation], list[int]]
    calls: CallSyntax | None = None
    source: str = ""


def chat_format(folder: Path, tokenizer: Tokenizer, attempt: Callable[[str], str] = attempt) -> ChatFormat | str:
    """The form, or why conversations cannot be served. ValueError if a file of the folder is damaged."""
    sources = TextFiles(folder).templates
    if "default" in sources:
        for source in sources.values():
            if refusal := attempt(source):
                return refusal
        try:
            template = Template(sources, tokenizer)
        except ValueError as error:
            return str(error)
        return ChatFormat("the checkpoint's template", template.ids, _calls(template, tokenizer), template.source)
    return _of_vocabulary(tokenizer)


def _of_vocabulary(tokenizer: Tokenizer) -> ChatFormat | str:
    vocabulary = tokenizer.vocabulary
    names, control = list(vocabulary.names), vocabulary.control
    if tokenizer.vocab_size > len(names):
        return "has tokens that were added to its vocabulary, but no chat template that uses them"
    starts = names[:3] == _START and (vocabulary.unk_id, vocabulary.bos_id, vocabulary.eos_id) == (0, 1, 2)
    inst, *others = [tokenizer.id_of(mark) in control for mark in _V3_MARKS]
    if starts and len(names) == _V3_SIZE and inst and all(others):
        return ChatFormat("Mistral's third template", _encoder(v3, tokenizer), MISTRAL)
    bytes_follow = list(vocabulary.pieces[3:259]) == [bytes([byte]) for byte in range(256)]
    if starts and len(names) == _V1_SIZE and bytes_follow and not inst:
        return ChatFormat("Mistral's first template", _encoder(v1, tokenizer))
    return "has no chat template"


def _encoder(
    layout: Callable[[Conversation], Iterator[Stretch]], tokenizer: Tokenizer
) -> Callable[[Conversation], list[int]]:
    """Each stretch apart, as in tuning: encoding puts a space in front of every one of them."""

    def ids(conversation: Conversation) -> list[int]:
        found: list[int] = []
        for stretch in layout(conversation):
            if isinstance(stretch, Mark):
                mark = tokenizer.id_of(stretch.name)
                assert mark is not None, f"no token {stretch.name}"
                found.append(mark)
            else:
                found += tokenizer.encode(stretch, bos=False)
        return found

    return ids


def _calls(template: Template, tokenizer: Tokenizer) -> CallSyntax | None:
    if not template.takes_tools:
        return None
    if tokenizer.id_of("[TOOL_CALLS]") is not None:
        return MISTRAL
    return HERMES if template.names_calls else None
