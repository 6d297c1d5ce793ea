"""Checkpoints' own templates against transformers' `apply_chat_template`."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from model.chat.conversation import ChatMessage, Conversation, Role, Tool, ToolCall
from model.chat.template import Template
from model.text.text_files import TextFiles
from model.text.tokenizer import Tokenizer
from tests.text_folders import CHATML, END, HERMES, MIXTRAL, START, text_folder

SYSTEM, USER, ASSISTANT, TOOL = Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.TOOL
ADDED = {END: 32000, START: 32001}
REVERSE = {START: 32000, END: 32001}
KINDS: dict[str, dict[str, Any]] = {
    "chatml": {"added": ADDED, "legacy": True, "eos_token": END},
    "chatml, ids the other way round": {"added": REVERSE, "legacy": False, "flags": {START: {"special": False}}},
    "hermes": {"added": ADDED, "template": HERMES},
    "mixtral": {"template": MIXTRAL},
}
# No name of a token comes of these: transformers would take it for one.
WORDS = ["mustard", " ", "\n", "日本語", "👍🏽", "x = [1]\n    y", "é", "|", ">", "im_end", "INST", "  ", "["]
TOOLS = [
    Tool("weather", "What the weather is", '{"type": "object", "properties": {"place": {"type": "string"}}}'),
    Tool("clock", 'Say "when"\n', '{"type": "object", "properties": {}}'),
]


def opened(folder: Path) -> tuple[Template, Tokenizer]:
    tokenizer = Tokenizer.load(folder)
    return Template(TextFiles(folder).templates, tokenizer), tokenizer


def as_transformers_has_them(messages: list[ChatMessage]) -> list[dict[str, Any]]:
    written = []
    for m in messages:
        one: dict[str, Any] = {"role": m.role.value, "content": m.content}
        if m.calls:
            one["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": json.loads(c.arguments)}}
                for c in m.calls
            ]
        if m.role is TOOL:
            one |= {"tool_call_id": m.call_id}
        written.append(one)
    return written


def described(tool: Tool) -> dict[str, Any]:
    about = {"name": tool.name, "description": tool.description, "parameters": json.loads(tool.parameters)}
    return {"type": "function", "function": about}


def words(rng: random.Random) -> str:
    return "".join(rng.choices(WORDS, k=rng.randrange(6)))


def conversation(rng: random.Random, kind: str) -> tuple[list[ChatMessage], list[Tool]]:
    messages: list[ChatMessage] = []
    if kind != "mixtral" and rng.random() < 0.5:
        messages.append(ChatMessage(SYSTEM, words(rng)))
    for _ in range(rng.randrange(1, 4)):
        messages.append(ChatMessage(USER, words(rng)))
        if kind == "hermes" and rng.random() < 0.5:
            messages.append(ChatMessage(ASSISTANT, "", (ToolCall("c1", "weather", '{"place": "Ulm é\\n"}'),)))
            messages.append(ChatMessage(TOOL, words(rng), call_id="c1"))
        messages.append(ChatMessage(ASSISTANT, words(rng)))
    messages.append(ChatMessage(USER, words(rng)))
    return messages, rng.choice([[], TOOLS]) if kind == "hermes" else []


@pytest.mark.parametrize("kind", KINDS)
def test_ids_equal_transformers_on_500_conversations(kind: str, tmp_path: Path) -> None:
    folder = text_folder(tmp_path, **KINDS[kind])
    oracle, (template, _) = AutoTokenizer.from_pretrained(folder), opened(folder)
    rng = random.Random(5)
    for n in range(500):
        messages, tools = conversation(rng, kind)
        final = n % 5 == 0
        if final:
            messages[-1:] = [ChatMessage(USER, "more"), ChatMessage(ASSISTANT, "So " + words(rng))]
        expected = oracle.apply_chat_template(
            as_transformers_has_them(messages),
            tools=[described(tool) for tool in tools] or None,
            add_generation_prompt=not final,
            continue_final_message=final,
            return_dict=False,
        )
        assert template.ids(Conversation(tuple(messages), tuple(tools), final)) == expected, messages


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_tokens_in_messages_and_tools_stay_text(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing that a user writes changes which control tokens there are, nor is any of it lost."""
    folder = text_folder(tmp_path_factory.mktemp("folder"), **KINDS[kind])
    template, tokenizer = opened(folder)
    marks = {token.id for token in tokenizer.named.tokens.values()}
    parts = st.sampled_from(
        [START, END, "<s>", "</s>", "<|im_", "end|>", "<", "/s>", "s>", ">", "s", " ", "a", "\ue000"]
    )
    evil = st.lists(parts, min_size=1, max_size=6).map("".join)

    def control(texts: list[str]) -> list[int]:
        messages = [ChatMessage(USER, texts[0]), ChatMessage(ASSISTANT, texts[1]), ChatMessage(USER, texts[2])]
        tools = (Tool("f", texts[3], json.dumps({"type": "object", "description": texts[3]})),)
        told = tools if kind == "hermes" else ()
        return [i for i in template.ids(Conversation(tuple(messages), told)) if i in marks]

    @settings(max_examples=150, deadline=None)
    @given(st.lists(evil, min_size=4, max_size=4))
    def holds(texts: list[str]) -> None:
        assert control(texts) == control(["x", "x", "x", "x"])
        ids = template.ids(Conversation((ChatMessage(USER, texts[0]),)))
        assert texts[0].replace("\u2581", " ") in tokenizer.decode(ids, special_tokens=True)

    holds()


def test_a_refused_conversation_is_folded_once(tmp_path: Path) -> None:
    """F14: Mixtral's template knows neither system messages nor two turns of one role."""
    template, tokenizer = opened(text_folder(tmp_path, template=MIXTRAL))
    said = [ChatMessage(SYSTEM, "Be terse."), ChatMessage(USER, "Hi"), ChatMessage(USER, "there")]
    said += [ChatMessage(ASSISTANT, "Yes?"), ChatMessage(SYSTEM, "Be kind."), ChatMessage(USER, "Bye")]
    text = tokenizer.decode(template.ids(Conversation(tuple(said))), special_tokens=True)
    assert text == "<s>[INST] Be terse.\n\nBe kind.\n\nHi\n\nthere [/INST]Yes?</s> [INST] Bye [/INST]"


def test_what_a_template_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    template, _ = opened(text_folder(tmp_path, template="{{ raise_exception('only ' ~ messages[0].content) }}"))
    with pytest.raises(ValueError, match="template refuses this conversation: only x"):
        template.ids(Conversation((ChatMessage(USER, "x"),)))
    broken, _ = opened(text_folder(tmp_path, template="{{ messages[0].content.nosuch.thing }}"))
    with pytest.raises(ValueError, match=r"refuses this conversation: .* has no attribute"):
        broken.ids(Conversation((ChatMessage(USER, "x"),)))


def test_a_message_that_the_template_leaves_out_cannot_be_continued(tmp_path: Path) -> None:
    template, _ = opened(text_folder(tmp_path, template="{{ messages[0].content }}"))
    with pytest.raises(ValueError, match="leaves the last message out"):
        template.ids(Conversation((ChatMessage(USER, "x"), ChatMessage(ASSISTANT, "y")), continue_final=True))


def test_tools_are_said_only_to_a_template_that_has_them(tmp_path: Path) -> None:
    assert opened(text_folder(tmp_path, added=ADDED, template=HERMES))[0].takes_tools
    assert not opened(text_folder(tmp_path, added=ADDED, template=CHATML))[0].takes_tools


def test_without_tools_in_a_template_their_answers_are_the_users(tmp_path: Path) -> None:
    template, tokenizer = opened(text_folder(tmp_path, added=ADDED))
    said = (ChatMessage(USER, "x"), ChatMessage(ASSISTANT, "", (ToolCall("1", "f", "{}"),)), ChatMessage(TOOL, "42"))
    text = tokenizer.decode(template.ids(Conversation(said)), special_tokens=True)
    assert text.endswith(f"{START} user\n42{END} \n{START} assistant\n") or f"user\n42{END}" in text


def test_the_words_of_a_message_are_its_own_whatever_tokens_are_called(tmp_path: Path) -> None:
    """A token named `<|function|>` has the key of a call in it."""
    added = {"<|function|>": 32000, "<|role|>": 32001, "<|content|>": 32002, "<|name|>": 32003}
    source = "{{ messages[0].role }}: {{ messages[1].tool_calls[0].function.name }} {{ tools[0].function.name }}"
    template, tokenizer = opened(text_folder(tmp_path, added=added, template=source))
    said = (ChatMessage(USER, "x"), ChatMessage(ASSISTANT, "", (ToolCall("1", "name", "{}"),)), ChatMessage(TOOL, "42"))
    ids = template.ids(Conversation(said, (Tool("role", "", "{}"),)))
    assert tokenizer.decode(ids, special_tokens=True) == "user: name role"


def test_an_escaped_character_in_private_use_comes_back_as_it_was(tmp_path: Path) -> None:
    """No stand-in may be mistaken for it."""
    template, tokenizer = opened(text_folder(tmp_path, added=ADDED, template=HERMES))
    call = ToolCall("1", "f", '{"a": "\\ue000"}')
    said = (ChatMessage(USER, START), ChatMessage(ASSISTANT, "", (call,)), ChatMessage(TOOL, "42"))
    text = tokenizer.decode(template.ids(Conversation(said, tuple(TOOLS))), special_tokens=True)
    assert '{"a": "\ue000"}' in text
