"""Grammars that cost too much are stopped in a process of their own."""

import json
import resource
import time

import pytest

from model.constraint.trial import TOO_COSTLY, attempt, costly

JSON = '%llguidance {"no_forcing": true}\nstart: %json '
TWENTY = JSON + json.dumps({"allOf": [{"type": "string", "pattern": f"[a-z]{i}x"} for i in range(20)]})


def test_what_takes_long_or_much_memory_is_stopped_without_harm() -> None:
    """20 patterns that must fit at once took 1.7 s and 200 MB in the server."""
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    assert costly(TWENTY)
    assert attempt(TWENTY) == TOO_COSTLY
    assert time.thread_time() - begun < 0.2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10, "KiB, of this process"


def test_what_is_wrong_is_said_as_the_library_says_it() -> None:
    assert "propertyNames" in attempt(JSON + json.dumps({"propertyNames": {}, "pattern": "a"}))
    assert attempt(JSON + json.dumps({"type": "string", "pattern": "a", "format": "uuid"})) == ""


@pytest.mark.parametrize("schema", [{"type": "object", "properties": {"a": {"pattern": "x{3,8}"}}}, {"const": 1}])
def test_usual_schemas_need_no_process(schema: object) -> None:
    assert not costly(JSON + json.dumps(schema))


@pytest.mark.parametrize("schema", [{"pattern": "a{1,300}"}, {"enum": ["x" * 9000]}])
def test_large_ones_do(schema: object) -> None:
    assert costly(JSON + json.dumps(schema))
