"""Templates of strangers: none reaches Python, none runs for ever."""

import itertools

import pytest

from model.chat.sandbox import Sandbox, tojson
from model.chat.trial import TOO_COSTLY, attempt

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ messages.append({'role': 'x'}) }}",
    "{{ raise_exception.__globals__['__builtins__']['open']('/etc/passwd').read() }}",
    "{{ namespace.__init__.__globals__ }}{{ namespace().x.__class__ }}",
    "{% set f = '{0.__class__.__init__.__globals__}' %}{{ f.format(messages) }}",
    "{{ self._TemplateReference__context.environment.filters['tojson'].__globals__ }}",
    "{{ lipsum(n=100000) }}",
]
LOOPS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) recursive %}{% set x = i %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{% for i in range(99) %}{{ f(n) }}{% endfor %}{% endmacro %}{{ f(1) }}",
    "{% set _tick = 1 %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
]
BOMBS = ["{{ 'a' * 10000000000 }}", "{{ 10 ** 10 ** 10 }}", "{{ '%99999999d' % 1 }}", "{{ [1] * 10000000000 }}"]
OTHER_COSTS = ["{{ 'a'.center(9999999999) }}", "{{ range(99999) | select('in', range(99999) | list) | list }}"]


@pytest.mark.parametrize("source", ESCAPES)
def test_nothing_of_python_is_reached(source: str) -> None:
    try:
        text = Sandbox(source).render({"messages": [{"role": "user", "content": "x"}]})
    except ValueError:
        return
    assert text == "", "an undefined value"


@pytest.mark.parametrize("source", LOOPS)
def test_a_loop_ends_when_its_time_is_up(source: str) -> None:
    sandbox = Sandbox(source, clock=itertools.count(step=0.01).__next__)
    with pytest.raises(ValueError, match=r"takes more than 0.5 s|recursion"):
        sandbox.render({})


@pytest.mark.parametrize("source", BOMBS)
def test_a_short_text_makes_no_long_one(source: str) -> None:
    with pytest.raises(ValueError, match=r"too long|too large"):
        Sandbox(source).render({})


@pytest.mark.parametrize("source", [*LOOPS[:1], *OTHER_COSTS])
def test_the_trial_finds_what_costs_too_much_whatever_the_means(source: str) -> None:
    assert attempt(source) == TOO_COSTLY


@pytest.mark.parametrize(
    "source", ["{{ messages[0].content }}", "{{ raise_exception('it is too long') }}", "{{ nothing.at.all }}"]
)
def test_the_trial_leaves_others_alone(source: str) -> None:
    assert attempt(source) == ""


def test_the_trial_tells_of_a_broken_one() -> None:
    assert "cannot be read" in attempt("{% for")


def test_the_environment_is_that_of_transformers() -> None:
    """Blocks leave no line ends, loops can be left, and JSON is not escaped for HTML."""
    source = "{% for i in range(9) %}\n  {% if i == 2 %}{% break %}{% endif %}\n{{ i }}\n{% endfor %}"
    assert Sandbox(source).render({}) == "0\n1\n"
    assert Sandbox("{% generation %}x{{ 1 }}{% endgeneration %}").render({}) == "x1"
    assert (
        Sandbox("{{ x | tojson }}|{{ x | tojson(indent=1) }}").render({"x": {"a": "<é>"}})
        == '{"a": "<é>"}|{\n "a": "<é>"\n}'
    )
    assert Sandbox("{{ strftime_now('%Y') | length }}").render({}) == "4"


def test_json_of_ascii_keeps_stand_ins() -> None:
    assert tojson("é\ue000🎉", ensure_ascii=True) == '"\\u00e9\ue000\\ud83c\\udf89"'
