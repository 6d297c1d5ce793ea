"""Callers with tokens find no page of each other's prompts; without tokens, and by choice, all share."""

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.engine.served_model import ServedModel
from cluster.settings.tokens import Scope, TokenFile, append, new_token
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.engines import engine_bounds
from tests.fakes import FakeHead
from tests.serving import Serving

SECRET = list(range(5, 25))
BOUNDS = engine_bounds()


def cached(server: Serving, token: str = "", user: str = "") -> int:
    """How much of the secret was found in the cache."""
    prompt = pb.Prompt(token_ids=pb.TokenIds(ids=SECRET))
    request = pb.GenerateRequest(prompt=prompt, stopping=pb.Stopping(max_tokens=1), user=user)
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    return int(server.client.stub.Generate(request, metadata=metadata).usage.cached_prompt_tokens)


@pytest.mark.parametrize("by_tenant", [True, False])
def test_a_prompt_is_found_by_its_own_tenant_only_unless_all_share(
    by_tenant: bool, demo: ServedModel, tmp_path: Path
) -> None:
    tokens = {}
    for name in ("alice", "bob"):
        tokens[name], entry = new_token(name, [Scope.INFERENCE])
        append(tmp_path / "tokens", entry)
    server = Serving(demo, tokens=TokenFile(tmp_path / "tokens"))
    server.ready(FakeHead(), replace(BOUNDS, prefixes_by_tenant=by_tenant))
    assert cached(server, tokens["alice"]) == 0
    assert cached(server, tokens["alice"]) > 0
    assert (cached(server, tokens["bob"]) > 0) is not by_tenant
    assert cached(server, tokens["bob"], user="alice") > 0, "its own, by now"
    server.close()


def test_without_tokens_there_are_no_tenants(demo: ServedModel) -> None:
    """A `user` is only said, so it separates nobody, and shall not cost a cache."""
    server = Serving(demo).ready(FakeHead(), BOUNDS)
    assert [cached(server, user=user) > 0 for user in ("alice", "bob")] == [False, True]
    server.close()
