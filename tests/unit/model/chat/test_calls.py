"""Calls of tools out of a growing output, and the rules that keep outputs to their form."""

import json

import pytest

from model.chat.calls import CALL_MARK, HERMES, MISTRAL, CallPart, CallReader, CallSyntax, call_id, nine

ARGUMENTS = ['{"place": "Ulm"}', '{"a": {"b": [1, {"c": "}]\\\\\\"]"}]}, "é": null}', "{}"]


def written(syntax: CallSyntax, arguments: list[str]) -> str:
    if syntax is HERMES:
        return "\n".join(
            f'<tool_call>\n{{"name": "f{i}", "arguments": {a}}}\n</tool_call>' for i, a in enumerate(arguments)
        )
    calls = ", ".join(
        f'{{"name": "f{i}", "arguments": {a}{", " + json.dumps("id") + ": " + json.dumps("a" * 9) if i else ""}}}'
        for i, a in enumerate(arguments)
    )
    return f"{CALL_MARK} [{calls}]"


def read(syntax: CallSyntax, text: str, size: int) -> tuple[str, list[CallPart]]:
    reader, said, parts = CallReader(syntax, "output"), "", list[CallPart]()
    for begin in range(0, len(text), size):
        more, calls = reader.push(text[begin : begin + size], last=begin + size >= len(text))
        said, parts = said + more, parts + calls
    return said, parts


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("syntax", [MISTRAL, HERMES])
@pytest.mark.parametrize("before", ["", "I shall look. ", "a <tool"])
def test_text_and_calls_are_told_apart_however_they_come(syntax: CallSyntax, before: str, size: int) -> None:
    said, parts = read(syntax, before + written(syntax, ARGUMENTS), size)
    assert said == before
    for i, arguments in enumerate(ARGUMENTS):
        first, *others = [part for part in parts if part.index == i]
        assert (first.name, first.id) == (f"f{i}", call_id("output", i))
        assert "".join(part.arguments for part in others) == arguments
        assert not any(part.id or part.name for part in others), "clients join what is told twice"


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_output_without_a_call_is_text(size: int) -> None:
    for text in ["hello", "  two", "< tool_call>", "<tool_cal", "<", " ", "a\n"]:
        assert read(HERMES, text, size) == (text, [])
    assert read(MISTRAL, "[TOOL_CALLS] [{", size) == ("[TOOL_CALLS] [{", []), "text is no control token"


def test_text_is_not_held_back_longer_than_it_may_begin_a_call() -> None:
    reader = CallReader(HERMES, "x")
    assert reader.push("a <tool")[0] == "a "
    assert reader.push("s>b")[0] == "<tools>b"


def test_text_after_calls(size: int = 3) -> None:
    said, parts = read(HERMES, written(HERMES, ["{}"]) + "\nDone.", size)
    assert (said, len({part.index for part in parts})) == ("Done.", 1)


def test_arguments_come_as_they_are_written() -> None:
    reader = CallReader(HERMES, "x")
    reader.push('<tool_call>\n{"name": "f", "arguments": ')
    assert reader.push('{"a": "o')[1][-1].arguments == '{"a": "o'
    assert reader.push("ne")[1] == [CallPart(0, arguments="ne")]


def test_an_output_that_is_cut_off_keeps_what_there_is() -> None:
    _, parts = read(MISTRAL, written(MISTRAL, ['{"a": 1}'])[:40], 5)
    assert "".join(part.arguments for part in parts).startswith('{"a')


def test_ids_have_nine_letters_and_digits() -> None:
    assert nine("abcDEF123") == "abcDEF123"
    for foreign in ["call_abc", "", "toolu_01", "x" * 300, "ü" * 9]:
        assert nine(foreign).isascii() and nine(foreign).isalnum() and len(nine(foreign)) == 9
        assert nine(foreign) == nine(foreign)
    assert len({call_id("output", i) for i in range(100)}) == 100
