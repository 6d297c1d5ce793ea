import json
import shlex
from pathlib import Path

import yaml
from jsonschema import validate  # type: ignore[import-untyped]

from cluster.launch.local_ray import daemon
from tests.multihost.cluster import SYSTEM_CONFIG, TUNED

ROOT = Path(__file__).resolve().parents[2]


def test_ray_config_matches_the_schema_that_ray_up_checks_it_against() -> None:
    import importlib.util

    spec = importlib.util.find_spec("ray")
    assert spec is not None and spec.origin is not None
    schema = json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    validate(yaml.safe_load((ROOT / "ray_config.yaml").read_text()), schema)


def test_lost_hosts_are_noticed_as_in_the_tests_with_several_hosts() -> None:
    *_, start = yaml.safe_load((ROOT / "ray_config.yaml").read_text())["head_start_ray_commands"]
    told = dict(word.split("=", 1) for word in start.split() if word.startswith("RAY_health"))
    assert told == TUNED, "tests/multihost/cluster.py measures with what ray_config.yaml says"


def test_every_host_asks_for_the_token_and_is_brought_it() -> None:
    config = yaml.safe_load((ROOT / "ray_config.yaml").read_text())
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "export RAY_AUTH_MODE=token;" in commands[-1], "a Ray without a token runs anybody's code"
    assert "~/.ray/auth_token" in config["file_mounts"]
    for shipped in ("ray_config.yaml", "cluster/launch/on_ray.py", "examples/eightwinds.service"):
        assert "disabled" not in (ROOT / shipped).read_text(), "shipped configurations do not switch the token off"


def test_ray_is_told_the_same_on_one_machine_and_on_several() -> None:
    *_, start = yaml.safe_load((ROOT / "ray_config.yaml").read_text())["head_start_ray_commands"]
    (told,) = [word for word in shlex.split(start) if word.startswith("--system-config=")]
    assert json.loads(told.partition("=")[2]) == SYSTEM_CONFIG
    assert SYSTEM_CONFIG.items() <= daemon.SYSTEM_CONFIG.items()
