"""`eightwinds plan` predicts the memory that the process of each actor then has."""

import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.policy.sizing import EXPERT_BYTES, HEAD_BYTES
from tests.integration.conftest import StartServer
from tests.integration.server import Server
from tests.integration.small import write_small

TOLERANCE = 0.1


def measured(server: Server) -> tuple[int, list[int]]:
    """Memory of its own (USS) that the head has, and each expert, in bytes."""
    heads, experts = list[int](), list[int]()
    for pid in server.actors():
        process = psutil.Process(pid)
        (heads if "HeadActor" in " ".join(process.cmdline()) else experts).append(process.memory_full_info().uss)
    (head,) = heads
    return head, experts


def planned(server: Server, *arguments: str) -> dict[str, Any]:
    done = server.command("plan", "--memory", "1TiB", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def agree(server: Server, plan: dict[str, Any], kv_bytes: int) -> None:
    head, experts = measured(server)
    model = plan["model"]
    assert head == pytest.approx(HEAD_BYTES + model["head"] + kv_bytes, rel=TOLERANCE)
    for expert in experts:
        assert expert == pytest.approx(EXPERT_BYTES + model["expert"], rel=TOLERANCE)


def test_of_the_demo_model(start: StartServer) -> None:
    server = start("--model", "demo").wait_ready()
    plan = planned(server)
    agree(server, plan, plan["kv"])


def test_of_a_model_with_wide_layers(start: StartServer, tmp_path: Path) -> None:
    shape = {"hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 4, "num_attention_heads": 16}
    write_small(tmp_path, **shape, num_key_value_heads=4, head_dim=64, dtype="bfloat16")
    given = ("--set", "experts.count=2", "--set", "kv.memory_bytes=67108864")
    server = start("--model", str(tmp_path), *given).wait_ready()
    agree(server, planned(server, "--model", str(tmp_path), *given), 64 << 20)
