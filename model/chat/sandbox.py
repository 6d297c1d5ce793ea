"""Runs a checkpoint's chat template as transformers does, but with its time and the size of its texts limited.

jinja2's sandbox keeps a template from Python's insides. It does not end a template that loops, so every loop and macro
asks here first whether there is time left.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_SECONDS = 0.5
_MOST_CHARACTERS = 16 << 20
_WIDE = re.compile(r"%[-+ #0]*(\d{5,}|\*)")  # a width that makes a short text long


class TooCostly(TemplateError):
    """The template takes more than it may."""


class _Generation(Extension):
    """transformers marks what a model wrote by `{% generation %}`, for training; nothing comes of it here."""

    tags = {"generation"}  # noqa: RUF012  # as the library declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("*", "**", "%"))

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self._clock, self._local = clock, threading.local()

    def begin(self) -> None:
        self._local.deadline = self._clock() + CPU_SECONDS

    def tick(self) -> str:
        if self._clock() > self._local.deadline:
            raise TooCostly(f"it takes more than {CPU_SECONDS} s")
        return ""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sizes = [len(value) for value in (left, right) if isinstance(value, str | list | tuple)]
        times = [abs(value) for value in (left, right) if isinstance(value, int)]
        if operator == "*" and sizes and times and sizes[0] * times[0] > _MOST_CHARACTERS:
            raise TooCostly("it makes a text that is too long")
        if operator == "**" and times and max(times) > 1024:
            raise TooCostly("it makes a number that is too large")
        if operator == "%" and isinstance(left, str) and _WIDE.search(left):
            raise TooCostly("it makes a text that is too long")
        return super().call_binop(context, operator, left, right)


class Sandbox:
    """A compiled template. May be shared between threads."""

    def __init__(self, source: str, clock: Callable[[], float] = time.thread_time) -> None:
        """ValueError if it is none. `clock` counts seconds of a core. `names` are what it takes from outside."""
        self._environment = _Sandbox(clock)
        self._environment.filters["tojson"] = tojson
        self._environment.globals.pop("lipsum")  # which makes texts of any length, without a loop
        self._environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
        try:
            tree = self._environment.parse(source)
            self.names = meta.find_undeclared_variables(tree)
            for kind in (nodes.For, nodes.Macro, nodes.CallBlock):
                for loop in tree.find_all(kind):
                    loop.body.insert(0, self._asks_for_time())  # type: ignore[attr-defined]  # each of the three has one
            code = self._environment.compile(tree)
        except (TemplateError, RecursionError) as error:
            raise ValueError(f"its chat template cannot be read: {error}") from None
        self._template = self._environment.template_class.from_code(self._environment, code, self._environment.globals)

    def render(self, values: Mapping[str, Any]) -> str:
        """The text; ValueError, in the template's own words, for whatever it raises, which is its cause."""
        self._environment.begin()
        try:
            text = self._template.render(values)
            if len(text) > _MOST_CHARACTERS:
                raise TooCostly("it makes a text that is too long")
        except Exception as error:  # a template can raise what Python can; none of it is the server's failure
            raise ValueError(str(error) or type(error).__name__) from error
        return text

    @staticmethod
    def _asks_for_time() -> nodes.Stmt:
        """No name of the template's can hide an attribute of the environment."""
        call = nodes.Call(nodes.EnvironmentAttribute("tick"), [], [], None, None)
        return nodes.Output([call])


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: nothing is escaped for HTML. Characters in private use, which stand in for others
    meanwhile (model/chat/protection.py), are never escaped.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    return re.sub("[^\\x00-\\x7f\ue000-\uf8ff\U000f0000-\U000ffffd]", _escaped, text) if ensure_ascii else text


def _escaped(match: re.Match[str]) -> str:
    return json.dumps(match.group())[1:-1]


def _refuse(message: object) -> None:
    raise TemplateError(str(message))


def _now(form: str) -> str:
    return datetime.now().strftime(str(form)[:200])
