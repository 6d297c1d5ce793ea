"""The ClusterService: what operators see of the cluster and change in it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

from actors.vitals import NodeInfo
from cluster.control.controller import Controller, HeadNode, NoSuchNode, RevisionMoved
from cluster.engine.served_model import ServedModel
from cluster.gateway.audit import audited
from cluster.gateway.auth import Caller
from cluster.gateway.backend import Backend
from cluster.gateway.errors import ApiError, Kind, Violation, invalid
from cluster.gateway.rpc.expert_stream import LoadWatches, whole
from cluster.gateway.rpc.limits import Places
from cluster.gateway.rpc.times import duration, now
from cluster.observe.snapshot import Snapshot
from cluster.observe.usage import Counters, between
from cluster.policy.replicas.lifecycle import Member, State
from cluster.policy.replicas.scaling import ScalingPolicy
from protos.eightwinds.v1 import cluster_pb2 as pb

_MOST_REPLICAS = 64
_DRAIN_SECONDS = 600.0
_LEAST_INTERVAL, _LONGEST_INTERVAL = 0.1, 3600.0
_STATES = {
    State.STARTING: pb.REPLICA_STATE_STARTING,
    State.READY: pb.REPLICA_STATE_READY,
    State.DRAINING: pb.REPLICA_STATE_DRAINING,
    State.UNREACHABLE: pb.REPLICA_STATE_UNREACHABLE,
    State.LOST: pb.REPLICA_STATE_LOST,
}


class ClusterService:
    """See protos/eightwinds/v1/cluster.proto. Handlers take a Caller where gRPC's own have a context."""

    def __init__(self, served: ServedModel, backend: Backend, watches: int = 128) -> None:
        """Load has at most so many `watches` at once."""
        self._backend = backend
        self._places = Places(watches, "TOO_MANY_WATCHES", "watches of load")
        self._watches = LoadWatches(self._look)
        config = served.checkpoint.config
        self._experts, self._layers = config.num_local_experts, config.num_hidden_layers

    async def GetStatus(self, request: pb.GetStatusRequest, caller: Caller) -> pb.GetStatusResponse:
        """Nodes, experts and replicas."""
        _, engine = self._backend.look()
        response = pb.GetStatusResponse(
            snapshot_time=now(),
            running_request_count=engine.running_count,
            waiting_request_count=engine.waiting_count,
        )
        controller = self._backend.controller
        snapshot = await asyncio.to_thread(controller.snapshot) if controller else None
        if snapshot:
            response.placement_revision = snapshot.revision
        if request.summary_only:
            for expert, count in enumerate(snapshot.desired if snapshot else [1] * self._experts):
                response.experts.add(expert=expert, desired_replica_count=count)
            return response
        counters = await self._counters(controller)
        ready = _ready(snapshot, self._experts)
        loads = between(Counters(self._backend.started), counters, ready).experts
        doubted = counters.head.doubted if counters.head else frozenset()
        response.head.restart_count = engine.statistics.head_restarts
        if counters.head:
            response.head.node_id = counters.head.node_id
        answers = counters.head is not None or controller is None
        response.head.state = pb.REPLICA_STATE_READY if answers else pb.REPLICA_STATE_UNREACHABLE
        if self._backend.autoscaler:
            response.policy.CopyFrom(_policy(self._backend.autoscaler.policy))
        if snapshot:
            response.nodes.extend(_node(node, node.node_id in snapshot.draining) for node in snapshot.nodes)
        for expert, load in enumerate(loads):
            members = [m for m in (snapshot.members if snapshot else ()) if m.id.expert == expert]
            response.experts.add(
                expert=expert,
                replicas=[_replica(member, member.id in doubted, self._backend.device) for member in members],
                desired_replica_count=snapshot.desired[expert] if snapshot else 1,
                load=whole(load),
                note=snapshot.notes.get(expert, "") if snapshot else "",
            )
        return response

    async def WatchExpertLoad(
        self, request: pb.WatchExpertLoadRequest, caller: Caller
    ) -> AsyncIterator[pb.WatchExpertLoadResponse]:
        """What each expert did, interval by interval."""
        interval = request.interval.ToNanoseconds() * 1e-9 if request.HasField("interval") else 1.0
        if violations := list(self._watch_violations(interval, request)):
            raise invalid(violations)
        layers = tuple(sorted(set(request.layers)) or range(self._layers))
        with self._places:
            async with aclosing(self._watches.messages(interval, layers)) as messages:
                async for message in messages:
                    yield message

    async def ScaleExperts(self, request: pb.ScaleExpertsRequest, caller: Caller) -> pb.ScaleExpertsResponse:
        """Other numbers of replicas."""
        with audited(request, caller):
            return await self._scale(request)

    async def _scale(self, request: pb.ScaleExpertsRequest) -> pb.ScaleExpertsResponse:
        if violations := list(self._scale_violations(request)):
            raise invalid(violations)
        self._backend.take()
        controller = self._backend.controller
        if controller is None:
            raise _fixed()
        wanted = {scale.expert: scale.replica_count for scale in request.experts}
        expected = request.expected_revision if request.HasField("expected_revision") else None
        try:
            revision, changes = await asyncio.to_thread(controller.scale, wanted, request.validate_only, expected)
        except RevisionMoved as error:
            raise ApiError(Kind.ABORTED, "REVISION_MOVED", str(error)) from None
        return pb.ScaleExpertsResponse(
            placement_revision=revision,
            changes=[pb.ReplicaChange(expert=c.id.expert, node_id=c.node_id, start=c.start) for c in changes],
        )

    async def DrainNode(self, request: pb.DrainNodeRequest, caller: Caller) -> pb.DrainNodeResponse:
        """Move replicas away from a node."""
        with audited(request, caller):
            return await self._drain(request)

    async def _drain(self, request: pb.DrainNodeRequest) -> pb.DrainNodeResponse:
        seconds = request.deadline.ToNanoseconds() * 1e-9 if request.HasField("deadline") else _DRAIN_SECONDS
        if seconds <= 0:
            raise invalid([Violation("deadline", "must be above 0 s")])
        self._backend.take()
        controller = self._backend.controller
        if controller is None:
            raise _fixed()
        try:
            await asyncio.to_thread(controller.drain_node, request.node_id, seconds, request.cancel)
        except NoSuchNode as error:
            raise ApiError(Kind.NOT_FOUND, "NODE_NOT_FOUND", str(error)) from None
        except HeadNode as error:
            raise ApiError(Kind.PRECONDITION, "HEAD_NODE", str(error)) from None
        return pb.DrainNodeResponse(state=pb.Node.STATE_READY if request.cancel else pb.Node.STATE_DRAINING)

    async def SetScalingPolicy(
        self, request: pb.SetScalingPolicyRequest, caller: Caller
    ) -> pb.SetScalingPolicyResponse:
        """Another policy of scaling by load."""
        with audited(request, caller):
            return await self._set_policy(request)

    async def _set_policy(self, request: pb.SetScalingPolicyRequest) -> pb.SetScalingPolicyResponse:
        p = request.policy
        policy = ScalingPolicy(
            p.enabled,
            p.min_replica_count,
            p.max_replica_count,
            p.max_total_replica_count,
            p.scale_up_utilization,
            p.scale_down_utilization,
            p.cooldown.ToNanoseconds() * 1e-9,
        )
        if problems := policy.problems(self._experts):
            raise invalid([Violation(f"policy.{field}", why) for field, why in problems])
        self._backend.take()
        if self._backend.autoscaler is None:
            raise _fixed()
        self._backend.autoscaler.set(policy)
        return pb.SetScalingPolicyResponse(policy=_policy(policy))

    async def _look(self) -> tuple[Counters, list[int]]:
        controller = self._backend.controller
        snapshot = await asyncio.to_thread(controller.snapshot) if controller else None
        return await self._counters(controller), _ready(snapshot, self._experts)

    async def _counters(self, controller: Controller | None) -> Counters:
        _, engine = self._backend.look()
        head = await asyncio.to_thread(controller.load) if controller else None
        layers = [list(row) for row in engine.statistics.expert_tokens] or [[0] * self._experts] * self._layers
        return Counters(asyncio.get_running_loop().time(), layers, head)

    def _watch_violations(self, interval: float, request: pb.WatchExpertLoadRequest) -> Iterator[Violation]:
        if not _LEAST_INTERVAL <= interval <= _LONGEST_INTERVAL:
            yield Violation("interval", f"must be {_LEAST_INTERVAL:g} s to {_LONGEST_INTERVAL:g} s")
        for i, layer in enumerate(request.layers):
            if not 0 <= layer < self._layers:
                yield Violation(f"layers[{i}]", f"must be 0 to {self._layers - 1}")

    def _scale_violations(self, request: pb.ScaleExpertsRequest) -> Iterator[Violation]:
        if not request.experts:
            yield Violation("experts", "must name at least one expert")
        seen = set[int]()
        for i, scale in enumerate(request.experts):
            if not 0 <= scale.expert < self._experts:
                yield Violation(f"experts[{i}].expert", f"must be 0 to {self._experts - 1}")
            elif scale.expert in seen:
                yield Violation(f"experts[{i}].expert", f"expert {scale.expert} is named twice")
            seen.add(scale.expert)
            if not 1 <= scale.replica_count <= _MOST_REPLICAS:
                yield Violation(f"experts[{i}].replica_count", f"must be 1 to {_MOST_REPLICAS}")


def _fixed() -> ApiError:
    text = "with runtime=in_process all experts run in the server's process; serve with runtime=ray"
    return ApiError(Kind.PRECONDITION, "REPLICAS_FIXED", text)


def _policy(policy: ScalingPolicy) -> pb.ScalingPolicy:
    return pb.ScalingPolicy(
        enabled=policy.enabled,
        min_replica_count=policy.min_replica_count,
        max_replica_count=policy.max_replica_count,
        max_total_replica_count=policy.max_total_replica_count,
        scale_up_utilization=policy.scale_up_utilization,
        scale_down_utilization=policy.scale_down_utilization,
        cooldown=duration(policy.cooldown),
    )


def _ready(snapshot: Snapshot | None, experts: int) -> list[int]:
    if snapshot is None:
        return [1] * experts
    ready = [m.id.expert for m in snapshot.members if m.state is State.READY]
    return [ready.count(expert) for expert in range(experts)]


def _replica(member: Member, doubted: bool, device: str) -> pb.Replica:
    state = State.UNREACHABLE if doubted and member.state is State.READY else member.state
    return pb.Replica(
        replica=member.id.index,
        node_id=member.node_id,
        state=_STATES[state],
        pid=member.pid,
        restart_count=member.restarts,
        device=device,
    )


def _node(node: NodeInfo, draining: bool) -> pb.Node:
    state = pb.Node.STATE_DRAINING if draining else pb.Node.STATE_READY
    return pb.Node(
        id=node.node_id,
        address=node.address,
        state=state if node.alive else pb.Node.STATE_LOST,
        accelerator_count=node.accelerators,
        memory_total_bytes=node.memory_total,
        memory_used_bytes=node.memory_used,
    )
