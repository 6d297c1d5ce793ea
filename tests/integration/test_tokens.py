"""A server with tokens beyond loopback, asked with the shipped commands as an operator does."""

from pathlib import Path

import grpc

from cluster.settings.tokens import Scope, append, new_token
from tests.certificates import Authority
from tests.integration.conftest import StartServer


def test_generate_with_a_token_without_and_with_one_that_was_taken_back(start: StartServer, tmp_path: Path) -> None:
    secret, entry = new_token("laptop", [Scope.INFERENCE])
    hashes, mine = tmp_path / "tokens", tmp_path / "secret"
    append(hashes, entry)
    mine.write_text(f"{secret}\n")
    authority = Authority(tmp_path)
    pair = authority.issue()
    secured = ("--cert", str(pair.certificate), "--key", str(pair.key))
    server = start("--listen", "0.0.0.0:0", "--token-file", str(hashes), *secured).wait_ready()
    where = ("--address", f"127.0.0.1:{server.address.rpartition(':')[2]}", "--ca", str(authority.file))
    asked = ("generate", "Once upon a time", "--temperature", "0", "--max-tokens", "8", *where)

    answered = server.command(*asked, "--token-file", str(mine))
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.strip()

    refused = server.command(*asked)
    assert refused.returncode == 10 + grpc.StatusCode.UNAUTHENTICATED.value[0]
    assert "--token-file" in refused.stderr

    hashes.write_text("# none\n")
    refused = server.command(*asked, "--token-file", str(mine))
    assert refused.returncode == 10 + grpc.StatusCode.UNAUTHENTICATED.value[0]


def test_beyond_loopback_without_tokens_is_refused_with_what_to_do(start: StartServer) -> None:
    refused = start("--listen", "0.0.0.0:0")
    assert refused.process.wait(30) == 1
    assert "--token-file" in refused.stderr() and "--insecure" in refused.stderr()
    assert refused.leftovers() == []
