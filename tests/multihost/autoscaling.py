"""Ray's own autoscaler brings a node for a replica that fits nowhere, and one too many is taken back with the reason.

The autoscaler is the real one; its nodes are further raylets on its host, which Ray's provider for tests starts where a
cloud's would start machines.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.client.client import Client
from protos.eightwinds.v1 import cluster_pb2 as pb
from tests.chaos.stage import Row
from tests.chaos.streams import Streams
from tests.multihost.cluster import EXPERTS, PORT, start_ray
from tests.multihost.hosts import Host
from tests.multihost.serve_process import Serve, wait
from tests.multihost.stage import CALM_SECONDS

_PLACEMENT_SECONDS = 45  # until a replica that found no node is taken back; a new node takes some 10 s
_IDLE_MINUTES = 0.2  # until the autoscaler takes a node away again
_MORE_NODES = 1
_MEMORY = 8 << 30  # a node without any takes no replica
_HEAD = "ray.head.default"  # what that provider takes its first node to be
_FAKE = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"


def _autoscaler() -> dict[str, Any]:
    """The configuration: nodes with room for one expert each, `_MORE_NODES` of them at most."""
    provider: dict[str, Any] = {"type": "external", "module": _FAKE, "use_node_id_as_ip": True}
    provider |= {"disable_node_updaters": True, "disable_launch_config_check": True}
    room = {"CPU": 1, "expert": 1, "memory": _MEMORY, "object_store_memory": 150_000_000}
    head = {"resources": {"CPU": 1, "expert": EXPERTS, "memory": _MEMORY}, "node_config": {}, "max_workers": 0}
    worker = {"resources": room, "node_config": {}, "min_workers": 0, "max_workers": _MORE_NODES}
    config: dict[str, Any] = {"cluster_name": "multihost", "max_workers": _MORE_NODES, "provider": provider}
    config |= {"available_node_types": {_HEAD: head, "expert": worker}, "head_node_type": _HEAD}
    config |= {"upscaling_speed": 1.0, "idle_timeout_minutes": _IDLE_MINUTES, "auth": {}, "docker": {}}
    config |= {"file_mounts": {}, "cluster_synced_files": [], "file_mounts_sync_continuously": False}
    config |= {"rsync_exclude": [], "rsync_filter": []}
    kinds = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return config | {f"{kind}_commands": [] for kind in kinds}


def start(host: Host, settings: Sequence[str]) -> Serve:
    """Ray with its autoscaler on a host with room for one replica of each expert, and a server that is ready."""
    config = Path("/tmp/autoscaling.json")
    (host.disk / "tmp" / config.name).write_text(json.dumps(_autoscaler()))
    arguments = ["--head", f"--port={PORT}", "--include-dashboard=false", f"--autoscaling-config={config}"]
    arguments.append(f"--resources={json.dumps({'expert': EXPERTS})}")
    start_ray(host, *arguments, environment={"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"})
    needs = ["experts.resources={expert: 1}", f"scaling.placement_timeout_s={_PLACEMENT_SECONDS}", *settings]
    words = [word for setting in needs for word in ("--set", setting)]
    return Serve(host, f"--ray-address={host.address}:{PORT}", *words).wait_ready()


def autoscale(serve: Serve, streams: Streams) -> Row:
    """A second replica of one expert, which needs a new node; one of another, for which there is none; then the new
    node is drained, and ends."""
    quiet = streams.start()
    time.sleep(3.0)
    streams.stop()
    with Client(serve.address) as client:
        tally, begin = streams.start(), time.monotonic()
        first = {node.id for node in client.status().nodes}
        client.scale({0: 2})
        brought = wait(lambda: _ready(client, 0) == 2, "a second replica of expert 0", serve.log.read_text)
        (where,) = {r.node_id for r in client.status().experts[0].replicas} - first
        time.sleep(CALM_SECONDS)
        client.scale({1: 2})
        wait(lambda: client.status().experts[1].desired_replica_count == 1, "it to be taken back", serve.log.read_text)
        note = client.status().experts[1].note
        client.scale({0: 1})
        wait(lambda: _ready(client, 0) == 1, "one replica of expert 0", serve.log.read_text)
        client.drain(where, 120.0)  # the one that stays is the one on the emptier node, which shall go
        gone = wait(lambda: _lost(client, where), "the autoscaler to take the node away", serve.log.read_text)
        windows = [(begin, time.monotonic())]
        streams.stop()
        replicas = len(client.status().experts[1].replicas)
    if "no node took it" not in note or replicas != 1:
        tally.failed.append(f"not taken back with its reason: {note!r}")
    notes = f"on a new node after {brought:.0f} s; one too many: {note}; drained, the node was gone after {gone:.0f} s"
    return Row("scale beyond what fits", 1, quiet, tally, windows, notes)


def _ready(client: Client, expert: int) -> int:
    return sum(r.state == pb.REPLICA_STATE_READY for r in client.status().experts[expert].replicas)


def _lost(client: Client, node_id: str) -> bool:
    return all(node.state == pb.Node.STATE_LOST for node in client.status().nodes if node.id == node_id)
