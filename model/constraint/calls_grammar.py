"""Keeps calls of tools to the form that is read (model/chat/calls.py), and their arguments to the tools' schemas."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from model.batch import Constraint, ConstraintKind
from model.chat.calls import CallSyntax
from model.constraint.schema import read

MOST_TOOLS = 128
_TEXT = r"TEXT: /(.|\n)+/"
_ID = r"ID: /, \"id\": \"[a-zA-Z0-9]{9}\"/"


@dataclass(frozen=True, slots=True)
class CallRules:
    """The functions that an output may call: names with the schemas of their arguments. `must`: it begins with a call,
    else it may have text, too, or nothing else. `single`: it may call once. `mark_id` is the control token in front of
    calls, None where the mark is text.
    """

    syntax: CallSyntax
    functions: tuple[tuple[str, str], ...]
    must: bool = False
    single: bool = False
    mark_id: int | None = None

    def constraint(self) -> Constraint:
        """Plain text, so that it travels to the head as any constraint does."""
        return Constraint(
            ConstraintKind.CALLS,
            json.dumps([self.syntax, self.functions, self.must, self.single, self.mark_id], ensure_ascii=False),
        )


def calls_grammar(text: str, options: Mapping[str, str]) -> str:
    """The rules in the library's own language; `options` go into each schema. ValueError if one of them is refused."""
    syntax, functions, must, single, mark_id = json.loads(text)
    lines, calls = [_TEXT], []
    for n, (name, parameters) in enumerate(functions):
        lines.append(f"args_{n}: %json {json.dumps(read(parameters) | {'x-guidance': dict(options)})}")
        head = json.dumps(f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": ', ensure_ascii=False)
        calls.append(f"{head} args_{n}")
    lines.append(f"call: {' | '.join(calls)}")
    if syntax == CallSyntax.MISTRAL:
        more = "" if single else '(", " one)*'
        lines += [_ID, 'one: call ID? "}"', f'calls: <[{mark_id}]> " "? "[" one {more} "]"']
        lines.append("start: calls" if must else "start: TEXT? calls?")
    else:
        lines.append(r'tail: "\n"? call "}" "\n"? "</tool_call>"')
        if must:
            lines.append(rf'start: /[ \n]?/ ("<tool_call>" tail "\n"?){"" if single else "+"}')
        else:  # what follows a lone call would be read as another one
            lines += [
                'lead[lazy]: TEXT? "<tool_call>"',
                f"start: {'TEXT? | lead tail' if single else '(lead tail)* TEXT?'}",
            ]
    return "\n".join(lines)
