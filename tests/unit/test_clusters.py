"""The configurations of clusters that ship: each is what Ray, Kubernetes and `serve` accept, and they agree."""

import itertools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.launch.local_ray import daemon
from cluster.settings.config import load_config
from tests.multihost.cluster import SYSTEM_CONFIG, TUNED
from tests.source_tree import ROOT

CLUSTERS = ROOT / "examples" / "clusters"
RAY = (ROOT / "ray_config.yaml", CLUSTERS / "aws.yaml")


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("path", RAY, ids=lambda path: path.name)
def test_ray_accepts_them_by_its_own_schema(path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(read(path))
    validate_config(prepared)
    types = prepared["available_node_types"]
    assert prepared["head_node_type"] in types
    assert sum(t.get("min_workers", 0) for t in types.values()) <= prepared["max_workers"]


def test_every_key_of_the_shipped_one_has_a_comment_above_it() -> None:
    lines = RAY[0].read_text(encoding="utf-8").splitlines()
    told = (
        "auth:",
        "provider:",
        "rsync_filter:",
        "  worker_ips",
        "  ssh_private_key",
        "  ~/eightwinds:",
    )  # with others
    keys = [(above, line) for above, line in itertools.pairwise(lines) if re.match(r" {0,2}[\w~]", line)]
    assert not [line for above, line in keys if not above.lstrip().startswith("#") and not line.startswith(told)]


def commands(path: Path) -> dict[str, str]:
    """The command that starts Ray, by kind of node."""
    content = read(path)
    return {kind: content[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker")}


@pytest.mark.parametrize("path", RAY, ids=lambda path: path.name)
def test_lost_hosts_are_noticed_as_in_the_tests_with_several_hosts(path: Path) -> None:
    told = dict(word.split("=", 1) for word in commands(path)["head"].split() if word.startswith("RAY_health"))
    assert told == TUNED, "tests/multihost/cluster.py measures with what is shipped"


@pytest.mark.parametrize("path", RAY, ids=lambda path: path.name)
def test_ray_is_told_the_same_on_one_machine_and_on_several(path: Path) -> None:
    (told,) = [word for word in shlex.split(commands(path)["head"]) if word.startswith("--system-config=")]
    assert json.loads(told.partition("=")[2]) == SYSTEM_CONFIG
    assert SYSTEM_CONFIG.items() <= daemon.SYSTEM_CONFIG.items()


@pytest.mark.parametrize("path", RAY, ids=lambda path: path.name)
def test_every_host_asks_for_the_token_and_is_brought_it(path: Path) -> None:
    content = read(path)
    for command in commands(path).values():
        assert "export RAY_AUTH_MODE=token" in command, "a Ray without a token runs anybody's code"
    assert content["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("chmod 600 ~/.ray/auth_token" in command for command in content["setup_commands"])


def test_no_shipped_configuration_switches_the_token_off() -> None:
    for shipped in ("ray_config.yaml", "cluster/launch/on_ray/joining.py", "examples/eightwinds.service"):
        assert "disabled" not in (ROOT / shipped).read_text(encoding="utf-8")
    assert not [path for path in CLUSTERS.iterdir() if "disabled" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", sorted(CLUSTERS.glob("*.serve.yaml")), ids=lambda path: path.name)
def test_serve_takes_what_stands_beside_them(path: Path) -> None:
    load_config(path, {})


def test_what_serve_asks_for_is_what_the_hosts_of_aws_have() -> None:
    config, types = load_config(CLUSTERS / "aws.serve.yaml", {}), read(CLUSTERS / "aws.yaml")["available_node_types"]
    has: dict[str, float] = {}
    for kind in types.values():
        for name, amount in kind["resources"].items():
            has[name] = has.get(name, 0) + amount * max(1, kind.get("min_workers", 1))
    assert has["head"] >= config.head.resources["head"]
    assert has["expert"] >= config.experts.resources["expert"] * config.experts.count
    per_host = types["expert-gpu"]["resources"]
    assert per_host["expert"] * config.experts.num_gpus <= per_host["GPU"]


KEYS = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"},
    "headGroupSpec": {"rayStartParams", "template"},
    "workerGroupSpecs": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}


def kubernetes() -> dict[str, Any]:
    documents = yaml.safe_load_all((CLUSTERS / "kubernetes.yaml").read_text(encoding="utf-8"))
    return {document["kind"]: document for document in documents}


def mounts(container: dict[str, Any]) -> set[str]:
    return {mount["name"] for mount in container.get("volumeMounts", ())}


def test_the_ray_cluster_of_kubernetes_has_the_keys_of_its_kind() -> None:
    cluster = kubernetes()["RayCluster"]
    spec, groups = cluster["spec"], [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    assert cluster["apiVersion"] == "ray.io/v1"
    assert cluster.keys() == KEYS[""] and spec.keys() == KEYS["spec"]
    assert spec["headGroupSpec"].keys() == KEYS["headGroupSpec"]
    for group in spec["workerGroupSpecs"]:
        assert group.keys() == KEYS["workerGroupSpecs"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in groups:
        for name, value in group["rayStartParams"].items():
            (word,) = shlex.split(f"--{name}={value}")  # as KubeRay writes it into a command line
            if name in ("system-config", "resources"):
                told = json.loads(word.partition("=")[2])
                assert name == "resources" or told == SYSTEM_CONFIG
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        assert all(container["name"] != "serve" or mounts(container) >= {"ray"} for container in pod["containers"])
        for container in pod["containers"]:
            environment = {entry["name"]: entry.get("value") for entry in container["env"]}
            assert environment["RAY_AUTH_MODE"] == "token"
            assert mounts(container) <= volumes
            assert container["resources"]["limits"] == container["resources"]["requests"]


def test_kubernetes_closes_rays_ports_to_strangers_and_opens_those_of_serve() -> None:
    documents = kubernetes()
    opened = [rule for rule in documents["NetworkPolicy"]["spec"]["ingress"] if "from" not in rule]
    assert [port["port"] for rule in opened for port in rule["ports"]] == [50051, 8000]
    serve = documents["RayCluster"]["spec"]["headGroupSpec"]["template"]["spec"]["containers"][1]
    named = {port["name"]: port["containerPort"] for port in serve["ports"]}
    assert {port["targetPort"] for port in documents["Service"]["spec"]["ports"]} == named.keys()
    assert {"--cert=/tls/tls.crt", "--key=/tls/tls.key", "--token-file=/tokens/tokens"} <= set(serve["args"])
