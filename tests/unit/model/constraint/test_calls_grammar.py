"""Which outputs the rules for calls of tools allow."""

import pytest

from model.batch import Constraint, ConstraintKind
from model.chat.calls import HERMES, MISTRAL, CallSyntax
from model.constraint.calls_grammar import CallRules
from model.constraint.grammar import Constraints
from model.text.tokenizer import Tokenizer
from tests.text_folders import V3

SCHEMA = (
    '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false}'
)
CALL = '{"name": "f", "arguments": {"a": 3}}'
OTHER = '{"name": "g.h", "arguments": {"a": -1}, "id": "abcdefgh1"}'


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(V3)


@pytest.fixture(scope="module")
def constraints(tokenizer: Tokenizer) -> Constraints:
    return Constraints(tokenizer, tokenizer.vocab_size, [tokenizer.eos_id])


def rules(syntax: CallSyntax, must: bool = False, single: bool = False) -> CallRules:
    return CallRules(syntax, (("f", SCHEMA), ("g.h", SCHEMA)), must, single, 5 if syntax is MISTRAL else None)


def allowed(constraints: Constraints, tokenizer: Tokenizer, wanted: CallRules, text: str) -> bool:
    """Whether a whole output may be this text, in which @ stands for the control token."""
    matcher = constraints.matcher(wanted.constraint())
    ids = [i for n, part in enumerate(text.split("@")) for i in ([5] if n else []) + tokenizer.encode(part, bos=False)]
    for token_id in [*ids, tokenizer.eos_id]:
        if not matcher.allowed()[token_id]:
            return False
        matcher.push(token_id)
    return not matcher.failure


TAGGED = f"<tool_call>\n{CALL}\n</tool_call>"


@pytest.mark.parametrize(
    ("syntax", "text", "auto", "must", "single"),
    [
        (MISTRAL, "hello", True, False, True),
        (MISTRAL, f"@[{CALL}]", True, True, True),
        (MISTRAL, f"@[{CALL}, {OTHER}]", True, True, False),
        (MISTRAL, f"I look. @[{OTHER}]", True, False, True),
        (MISTRAL, f"@[{CALL}] more", False, False, False),
        (MISTRAL, '@[{"name": "other", "arguments": {"a": 3}}]', False, False, False),
        (MISTRAL, '@[{"name": "f", "arguments": {"a": "x"}}]', False, False, False),
        (MISTRAL, "@[]", False, False, False),
        (HERMES, "hello <b>", True, False, True),
        (HERMES, TAGGED, True, True, True),
        (HERMES, f"{TAGGED}\n{TAGGED}", True, True, False),
        (HERMES, f"I look. {TAGGED}", True, False, True),
        (HERMES, f"{TAGGED} Done.", True, False, False),
        (HERMES, "<tool_call>oops</tool_call>", False, False, False),
        (HERMES, '<tool_call>\n{"name": "f", "arguments": {"b": 1}}\n</tool_call>', False, False, False),
    ],
)
def test_what_may_be_written(
    constraints: Constraints, tokenizer: Tokenizer, syntax: CallSyntax, text: str, auto: bool, must: bool, single: bool
) -> None:
    assert allowed(constraints, tokenizer, rules(syntax), text) is auto
    assert allowed(constraints, tokenizer, rules(syntax, must=True), text) is must
    assert allowed(constraints, tokenizer, rules(syntax, single=True), text) is single


def test_a_schema_that_cannot_be_used_is_refused(constraints: Constraints) -> None:
    bad = CallRules(HERMES, (("good", "{}"), ("bad", '{"type": "nosuch"}')))
    with pytest.raises(ValueError, match=r"schema of a tool's parameters cannot be used: .*nosuch"):
        constraints.check(bad.constraint())


def test_many_tools_can_be_used(constraints: Constraints) -> None:
    constraints.check(CallRules(MISTRAL, tuple((f"f{i}", SCHEMA) for i in range(128)), mark_id=5).constraint())


def test_rules_are_plain_text() -> None:
    assert rules(HERMES).constraint() == Constraint(ConstraintKind.CALLS, rules(HERMES).constraint().text), (
        "they travel to the head, and are compared there"
    )
