"""Head and experts are nine processes, each with its own weights and nobody else's."""

import psutil
import pytest
import ray

from actors.remote.actors import find_actor, reports_of
from actors.replica import ReplicaId
from actors.specs import ActorReport
from cluster.engine.served_model import DEMO_FOLDER
from cluster.launch.on_ray.actors import name_of
from model.checkpoint.folder import Checkpoint
from tests.integration.server import Server


def reports(server: Server) -> dict[str, ActorReport]:
    assert server.local is not None
    ray.init(address=server.local.address, namespace="eightwinds", log_to_driver=False)
    try:
        names = ["head", *(name_of(ReplicaId(e, 0)) for e in range(8))]
        return reports_of({name: find_actor(name, "eightwinds") for name in names})
    finally:
        ray.shutdown()


@pytest.mark.usefixtures("on_loopback")
def test_nine_processes_hold_disjoint_weights_that_make_up_the_checkpoint(server: Server) -> None:
    found = reports(server)
    checkpoint = Checkpoint.open(DEMO_FOLDER)
    pids = {report.pid for report in found.values()}
    assert len(pids) == 9 and server.process.pid not in pids
    assert all(psutil.pid_exists(pid) for pid in pids)

    held: list[str] = []
    for name, report in found.items():
        stored = sum(checkpoint.tensors[tensor].nbytes for tensor in report.tensors)
        assert report.weight_bytes == stored, f"{name} holds {report.weight_bytes} bytes, its tensors have {stored}"
        held += report.tensors
    assert sorted(held) == sorted(checkpoint.tensors), "every tensor is held once, by one process"

    assert not [tensor for tensor in found["head"].tensors if ".experts." in tensor]
    for expert in range(8):
        mine = f".experts.{expert}."
        assert all(mine in tensor for tensor in found[name_of(ReplicaId(expert, 0))].tensors)
        assert len(found[name_of(ReplicaId(expert, 0))].tensors) == 3 * checkpoint.config.num_hidden_layers
