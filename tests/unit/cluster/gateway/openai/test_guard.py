"""What a request needs before its endpoint sees it: a token, and a body that is called JSON."""

import time
from functools import partial
from pathlib import Path

import pytest

from cluster.engine.served_model import ServedModel
from cluster.gateway.openai import guard
from cluster.observe.refusals import Reluctance
from cluster.settings.tokens import Scope, TokenFile, append, new_token
from tests.openai_door import COMPLETIONS, ask
from tests.serving import Serving

BODY = b'{"prompt": "a", "max_tokens": 1}'
FORM = "application/x-www-form-urlencoded"  # what curl -d says
PAGE = {"Origin": "https://a.example"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Content-Type": "application/json"}, 200),
        ({"Content-Type": "Application/JSON; charset=utf-8"} | PAGE, 200),
        ({"Content-Type": FORM}, 200),
        (PAGE, 400),
        ({"Content-Type": FORM} | PAGE, 400),
        ({"Content-Type": "text/plain"}, 400),
        ({"Content-Type": "multipart/form-data; boundary=a"}, 400),
    ],
)
def test_a_page_must_call_its_body_json_which_a_browser_asks_about_first(
    headers: dict[str, str], status: int, serving: Serving
) -> None:
    """F25."""
    answered = ask(serving, COMPLETIONS, BODY, headers=headers)
    assert answered.status == status
    assert status == 200 or answered.error["code"] == "unsupported_media_type"


def test_a_flood_of_wrong_tokens_is_held_back(
    demo: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F6."""
    _, line = new_token("alice", [Scope.INFERENCE])
    append(tmp_path / "tokens", line)
    monkeypatch.setattr(guard, "Reluctance", partial(Reluctance, at_once=2, seconds=0.3))
    server = Serving(demo, tokens=TokenFile(tmp_path / "tokens"))

    def seconds() -> float:
        begun = time.monotonic()
        assert ask(server, "/v1/models", headers={"Authorization": "Bearer x"}).status == 401
        return time.monotonic() - begun

    try:
        assert max(seconds() for _ in range(6)) >= 0.3, "no second begins twice between three of them"
    finally:
        server.close()
