"""Two dispatches under way at once over Ray, at the experts of a running server."""

from collections.abc import Sequence

import pytest
import ray
import torch

from actors.remote.actors import find_actor
from actors.replica import Replica, ReplicaId
from actors.routing.replicas import Replicas
from actors.routing.router import ExpertRouter
from actors.routing.step_counts import StepCounts
from actors.transport.object_refs import RayTransport
from cluster.engine.served_model import DEMO_FOLDER
from cluster.launch.on_ray.actors import name_of
from model.checkpoint.folder import Checkpoint
from model.routing import Dispatch, route
from tests.integration.server import Server


def dispatches(hidden: int, experts: int) -> list[Dispatch]:
    found = []
    for layer, tokens in ((0, 20), (1, 3), (1, 500)):
        source = torch.Generator().manual_seed(tokens)
        experts_TK, weights_TK = route(torch.randn(tokens, experts, generator=source), 2)
        found.append(Dispatch(layer, torch.randn(tokens, hidden, generator=source), experts_TK, weights_TK))
    return found


@pytest.mark.usefixtures("on_loopback")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_dispatches_are_combined_in_any_order(server: Server, order: Sequence[int]) -> None:
    assert server.local is not None
    config = Checkpoint.open(DEMO_FOLDER).config
    ray.init(address=server.local.address, namespace="eightwinds", log_to_driver=False)
    try:
        transport = RayTransport()
        handles = [find_actor(name_of(ReplicaId(e, 0)), "eightwinds") for e in range(config.num_local_experts)]
        table = tuple((transport.connect(Replica(e, 0, "", handle)),) for e, handle in enumerate(handles))
        router = ExpertRouter(transport, Replicas(table), grace=60.0)
        asked = dispatches(config.hidden_size, config.num_local_experts)
        alone = [router.combine(router.dispatch(dispatch), StepCounts()) for dispatch in asked]
        receipts = [router.dispatch(dispatch) for dispatch in asked]
        for index in order:
            assert torch.equal(router.combine(receipts[index], StepCounts()), alone[index])
        router.replicas.check()
    finally:
        ray.shutdown()
