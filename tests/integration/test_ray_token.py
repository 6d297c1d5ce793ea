"""A Ray cluster that asks for a token: who has it joins, who has not is told why not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.launch.local_ray.daemon import LOOPBACK
from tests.integration.cluster import ray_cluster

TOKEN = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster that was started with RAY_AUTH_MODE=token, as ray_config.yaml does."""
    with ray_cluster("token", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN) as found:
        yield found


def down(address: str, tmp_path: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`eightwinds down` joins the cluster, as `serve` does, and needs nothing of it."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    command = [sys.executable, "-m", "cluster.cli", "down", "--ray-address", address]
    known |= LOOPBACK | {"HOME": str(tmp_path)} | environment
    return subprocess.run(command, env=known, capture_output=True, text=True, timeout=120)


def test_who_has_the_token_joins_wherever_it_is(address: str, tmp_path: Path) -> None:
    joined = down(address, tmp_path, RAY_AUTH_TOKEN=TOKEN)
    assert joined.stdout == "nothing to remove\n", joined.stderr
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(TOKEN)
    joined = down(address, tmp_path)
    assert joined.stdout == "nothing to remove\n" and "without a token" not in joined.stderr


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "it asks for a token, we have none"),
        ({"RAY_AUTH_MODE": "token"}, "RAY_AUTH_MODE=token, but there is no token"),
        ({"RAY_AUTH_TOKEN": "f" * 64}, "the token from RAY_AUTH_TOKEN is not its own"),
    ],
)
def test_a_wrong_or_missing_token_is_named(
    environment: dict[str, str], reason: str, address: str, tmp_path: Path
) -> None:
    refused = down(address, tmp_path, **environment)
    assert refused.returncode == 1 and reason in refused.stderr and "ray get-auth-token" in refused.stderr
