"""The chat template against mistral-common (which must be installed) with Mixtral-8x7B's vocabulary."""

import random
from collections.abc import Callable, Sequence
from importlib.resources import files
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from model.text.chat import ChatMessage, Role, Turn, render
from model.text.tokenizer import Tokenizer

VOCABULARIES = Path(str(files("mistral_common"))) / "data"
SYSTEM, USER, ASSISTANT = Role.SYSTEM, Role.USER, Role.ASSISTANT
PARTS = ["", " ", "   ", "\n", "\n\n", "\t", "\x00", "</s>", "<s>", "[INST]", "[/INST]", " [INST] x [/INST] "]
PARTS += [
    "Which condiment?",
    "mustard",
    "日本語",
    "你好",
    "👍🏽",
    "é",
    "x = [i for i in y]\n    z",
    "\u2581",
    "<<SYS>>",
]

Oracle = Callable[[Any], Any]  # mistral-common's own types take four parameters and say no more


@pytest.fixture(scope="module")
def mixtral() -> Tokenizer:
    return Tokenizer.load(VOCABULARIES / "tokenizer.model.v1")


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return MistralTokenizer.v1().encode_chat_completion


def oracle_ids(oracle: Oracle, messages: Sequence[ChatMessage], final: bool) -> list[int] | None:
    """mistral-common's ids, or None where it refuses the conversation."""
    written = [{"role": message.role.value, "content": message.content} for message in messages]
    try:
        ids: list[int] = oracle(ChatCompletionRequest(messages=written, continue_final_message=final)).tokens
        return ids
    except MistralCommonException:
        return None


def random_content(rng: random.Random) -> str:
    if rng.random() < 0.2:
        points = [rng.randrange(0x110000) for _ in range(rng.randrange(1, 6))]
        return "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)
    return "".join(rng.choice(PARTS) for _ in range(rng.randrange(5)))


def random_conversation(rng: random.Random) -> tuple[list[ChatMessage], bool]:
    """A conversation that both must accept: system messages in most places they may stand, 1 to 7 turns."""
    count = rng.randrange(1, 8)
    messages: list[ChatMessage] = []
    for number in range(count):
        role = USER if number % 2 == 0 else ASSISTANT
        if role is ASSISTANT or not messages:  # hence never directly after an assistant message
            messages += [ChatMessage(SYSTEM, random_content(rng)) for _ in range(rng.choice([0, 0, 1, 1, 2]))]
        messages.append(ChatMessage(role, random_content(rng) or ("" if role is USER else "yes")))
    return messages, count % 2 == 0


def test_ids_equal_mistral_common_on_2000_conversations(mixtral: Tokenizer, oracle: Oracle) -> None:
    rng = random.Random(7)
    for _ in range(2000):
        messages, final = random_conversation(rng)
        expected = oracle_ids(oracle, messages, final)
        assert expected is not None, messages
        assert mixtral.encode_chat(messages, continue_final_message=final) == expected, messages


def test_the_same_conversations_are_accepted_but_for_a_role_repeated_across_a_system_message(
    mixtral: Tokenizer, oracle: Oracle
) -> None:
    """Every sequence of up to four roles, with and without continuation."""
    accepted = 0
    for length, final in product(range(5), (False, True)):
        for roles in product(Role, repeat=length):
            messages = [ChatMessage(role, f"text {index}") for index, role in enumerate(roles)]
            expected = oracle_ids(oracle, messages, final)
            joined = [role for role, before in zip(roles, (None, *roles), strict=False) if role is not before]
            spoken = [role for role in joined if role is not SYSTEM]
            if expected is None or any(a is b for a, b in pairwise(spoken)):
                with pytest.raises(ValueError):
                    mixtral.encode_chat(messages, continue_final_message=final)
            else:
                assert mixtral.encode_chat(messages, continue_final_message=final) == expected, roles
                accepted += 1
    assert accepted == 78, "the number of conversations that both accept"


def test_empty_contents_are_treated_as_in_mistral_common(mixtral: Tokenizer, oracle: Oracle) -> None:
    for system, user, answer in product(["", " ", "s"], ["", " ", "u"], [" ", "a"]):
        for messages, final in (
            ([ChatMessage(SYSTEM, system), ChatMessage(USER, user)], False),
            ([ChatMessage(USER, user), ChatMessage(SYSTEM, system)], False),
            ([ChatMessage(SYSTEM, system), ChatMessage(SYSTEM, ""), ChatMessage(USER, user)], False),
            ([ChatMessage(USER, user), ChatMessage(ASSISTANT, answer)], True),
            ([ChatMessage(USER, user), ChatMessage(ASSISTANT, answer), ChatMessage(USER, user)], False),
        ):
            expected = oracle_ids(oracle, messages, final)
            assert expected is not None
            assert mixtral.encode_chat(messages, continue_final_message=final) == expected, messages


def test_the_layout_of_a_conversation() -> None:
    messages = [
        ChatMessage(SYSTEM, "Be terse."),
        ChatMessage(USER, "Hi"),
        ChatMessage(SYSTEM, "Be kind."),
        ChatMessage(ASSISTANT, "Hello."),
        ChatMessage(USER, "Bye"),
    ]
    opening = Turn("[INST] Be terse.\n\nBe kind.\n\nHi [/INST]", closed=False)
    assert render(messages) == [
        opening,
        Turn("Hello.", closed=True),
        Turn("[INST] Bye [/INST]", closed=False),
    ]
    assert render(messages[:4], continue_final_message=True) == [opening, Turn("Hello.", closed=False)]
    assert render([ChatMessage(SYSTEM, "s")]) == [Turn("[INST] s\n\n [/INST]", closed=False)]


def test_control_text_in_a_message_is_not_a_control_id(mixtral: Tokenizer) -> None:
    ids = mixtral.encode_chat([ChatMessage(SYSTEM, "</s><s>"), ChatMessage(USER, "</s> [/INST] <s>")])
    assert ids[0] == 1
    assert not {0, 1, 2} & set(ids[1:])
    text = mixtral.decode(ids, special_tokens=True)
    assert text == "<s>[INST] </s><s>\n\n</s> [/INST] <s> [/INST]"


@pytest.mark.parametrize(
    ("roles", "final", "said"),
    [
        ([], False, "The conversation is empty"),
        ([ASSISTANT], False, "messages[0], the last, is an assistant message: end with a user message"),
        ([ASSISTANT], True, "messages[0] is an assistant message and the only one: put a user message"),
        ([USER], True, "messages[0] is a user message, and only an assistant message can be continued"),
        ([SYSTEM], True, "messages[0] is a system message, and only an assistant message can be continued"),
        ([USER, ASSISTANT], False, "messages[1], the last, is an assistant message"),
        ([USER, ASSISTANT, USER], True, "messages[2] is a user message, and only"),
        ([USER, SYSTEM, USER], False, "messages[2] is a second user message, with only a system message between"),
        ([USER, ASSISTANT, SYSTEM, USER], False, "messages[2] is a system message directly after"),
    ],
)
def test_a_refusal_names_the_message(mixtral: Tokenizer, roles: list[Role], final: bool, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        mixtral.encode_chat([ChatMessage(role, "x") for role in roles], continue_final_message=final)
    assert said in str(caught.value)


def test_bad_contents_are_refused(mixtral: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"messages\[1\] is an empty assistant message: give it content"):
        mixtral.encode_chat([ChatMessage(USER, "x"), ChatMessage(ASSISTANT, ""), ChatMessage(USER, "y")])
    with pytest.raises(ValueError, match=r"messages\[1\] has a lone surrogate \(U\+DC00\) at character 1"):
        mixtral.encode_chat([ChatMessage(SYSTEM, "x"), ChatMessage(USER, "y\udc00")])


def test_a_vocabulary_without_chat_refuses() -> None:
    v3 = Tokenizer.load(VOCABULARIES / "mistral_instruct_tokenizer_240323.model.v3")
    with pytest.raises(ValueError, match="has no chat template: send the prompt as text"):
        v3.encode_chat([ChatMessage(USER, "x")])
