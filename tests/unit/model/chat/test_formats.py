"""Which form of conversations a folder gets."""

from collections.abc import Callable
from pathlib import Path

import pytest

from model.chat.calls import HERMES, MISTRAL
from model.chat.conversation import ChatMessage, Conversation, Role
from model.chat.formats import ChatFormat, chat_format
from model.text.tokenizer import Tokenizer
from tests.text_folders import CHATML, END, MIXTRAL, START, V1, V3, text_folder
from tests.text_folders import HERMES as HERMES_TEMPLATE


def form(folder: Path, attempt: Callable[[str], str] = lambda source: "") -> ChatFormat | str:
    return chat_format(folder, Tokenizer.load(folder), attempt)


def named(folder: Path) -> str:
    found = form(folder)
    return found if isinstance(found, str) else found.name


def test_a_vocabulary_of_mistral_has_mistrals_template(tmp_path: Path) -> None:
    assert named(text_folder(tmp_path / "1", template=None)) == "Mistral's first template"
    assert named(text_folder(tmp_path / "3", template=None, model=V3)) == "Mistral's third template"


def test_the_checkpoints_own_template_goes_first(tmp_path: Path) -> None:
    assert named(text_folder(tmp_path / "1", template=MIXTRAL)) == "the checkpoint's template"
    folder = text_folder(tmp_path / "2", template=MIXTRAL)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    found = form(folder)
    assert isinstance(found, ChatFormat)
    assert found.source == "{{ messages[0].content }}", "the file goes before the settings"


def test_chatml_never_falls_back_to_inst(tmp_path: Path) -> None:
    said = form(text_folder(tmp_path, added={END: 32000, START: 32001}, template=None))
    assert said == "has tokens that were added to its vocabulary, but no chat template that uses them"


def test_how_a_model_calls_tools(tmp_path: Path) -> None:
    added = {END: 32000, START: 32001}
    cases = [
        (text_folder(tmp_path / "1", template=MIXTRAL), None),
        (text_folder(tmp_path / "2", added=added, template=CHATML), None),
        (text_folder(tmp_path / "3", added=added, template=HERMES_TEMPLATE), HERMES),
        (text_folder(tmp_path / "4", template=None, model=V3), MISTRAL),
        (text_folder(tmp_path / "5", template="{{ tools }}"), None),  # told, but in what form it calls is unknown
        (text_folder(tmp_path / "6", template="{{ tools }}", model=V3), MISTRAL),
    ]
    for folder, calls in cases:
        found = form(folder)
        assert isinstance(found, ChatFormat)
        assert found.calls is calls, folder


def test_several_templates_by_name(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T {{ tools }} <tool_call>"}]
    folder = text_folder(tmp_path, template=None, chat_template=named)
    found = form(folder)
    assert isinstance(found, ChatFormat)
    assert found.calls is HERMES
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.decode(found.ids(Conversation((ChatMessage(Role.USER, "x"),)))) == "D"


@pytest.mark.parametrize("template", ["{% for", "{{ x | nosuchfilter }}", "{% endfor %}"])
def test_a_broken_template_is_no_chat(template: str, tmp_path: Path) -> None:
    assert "its chat template cannot be read" in str(form(text_folder(tmp_path, template=template)))


def test_a_template_that_fails_its_trial_is_no_chat(tmp_path: Path) -> None:
    assert form(text_folder(tmp_path), attempt=lambda source: "it is hostile") == "it is hostile"


def model_file_parts() -> list[bytes]:
    """Mixtral's model file, cut into its 32,000 pieces (protobuf: tag 0x0A, length, body) and the rest."""
    data, parts, at = V1.read_bytes(), [], 0
    for _ in range(32_000):
        end = at + 2 + data[at + 1]
        parts.append(data[at:end])
        at = end
    return [*parts, data[at:]]


def _inst_is_control(parts: list[bytes]) -> None:
    body = b"\x0a\x06[INST]" + b"\x15\x00\x00\x00\x00" + b"\x18\x03"  # name, score 0, type CONTROL
    parts[31_999] = b"\x0a" + bytes([len(body)]) + body


def _byte_pieces_elsewhere(parts: list[bytes]) -> None:
    parts[3:259] = [parts[258], *parts[3:258]]


def _byte_pieces_are_text(parts: list[bytes]) -> None:
    parts[3:259] = [part[:-1] + b"\x01" for part in parts[3:259]]  # type NORMAL
    parts[-1] += b"\x12\x03\x98\x02\x00"  # trainer_spec.byte_fallback false


def _names_swapped(parts: list[bytes]) -> None:
    parts[1:3] = [parts[2], parts[1]]


def _meanings_swapped(parts: list[bytes]) -> None:
    spec = b"\xf2\x02\x04</s>" + b"\xfa\x02\x03<s>"  # bos_piece, eos_piece
    parts[-1] += b"\x12" + bytes([len(spec)]) + spec


NEAR_MISSES = [_inst_is_control, _byte_pieces_elsewhere, _byte_pieces_are_text]
NEAR_MISSES += [_names_swapped, _meanings_swapped]


@pytest.mark.parametrize("change", NEAR_MISSES)
def test_chat_is_not_offered_for_near_misses(tmp_path: Path, change: Callable[[list[bytes]], None]) -> None:
    parts = model_file_parts()
    for altered in (False, True):
        if altered:
            change(parts)
        (tmp_path / "tokenizer.model").write_bytes(b"".join(parts))
        assert (named(tmp_path) == "has no chat template") is altered
