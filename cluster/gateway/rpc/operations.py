"""The ClusterService: what operators see of the cluster and change in it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager

from actors.vitals import NodeInfo
from cluster.control.errors import HeadNode, NoSuchNode, ReplicasFixed, RevisionMoved
from cluster.engine.served_model import ServedModel
from cluster.gateway.audit import audited
from cluster.gateway.auth import Caller
from cluster.gateway.backend import Backend
from cluster.gateway.errors import ApiError, Kind, Violation, invalid
from cluster.gateway.rpc.expert_stream import LoadWatches, whole
from cluster.gateway.rpc.limits import Places
from cluster.gateway.rpc.times import duration, now
from cluster.observe.events import Event
from cluster.observe.events import Kind as Happening
from cluster.observe.usage import since_start
from cluster.observe.view import ClusterView
from cluster.policy.replicas.lifecycle import Member, State
from cluster.policy.replicas.reconcile import Change
from cluster.policy.replicas.scaling import ScalingPolicy
from protos.eightwinds.v1 import cluster_pb2 as pb

_MOST_REPLICAS = 64
_DRAIN_SECONDS = 600.0
_EVENT_SECONDS = 0.25  # between looks for new events
_LEAST_INTERVAL, _LONGEST_INTERVAL = 0.1, 3600.0
_STATES = {
    State.STARTING: pb.REPLICA_STATE_STARTING,
    State.READY: pb.REPLICA_STATE_READY,
    State.RETIRING: pb.REPLICA_STATE_DRAINING,
    State.UNREACHABLE: pb.REPLICA_STATE_UNREACHABLE,
    State.LOST: pb.REPLICA_STATE_LOST,
}
_REFUSED: dict[type[Exception], tuple[Kind, str]] = {
    ReplicasFixed: (Kind.PRECONDITION, "REPLICAS_FIXED"),
    RevisionMoved: (Kind.ABORTED, "REVISION_MOVED"),
    NoSuchNode: (Kind.NOT_FOUND, "NODE_NOT_FOUND"),
    HeadNode: (Kind.PRECONDITION, "HEAD_NODE"),
}


class ClusterService:
    """See protos/eightwinds/v1/cluster.proto. Handlers take a Caller where gRPC's own have a context."""

    def __init__(self, served: ServedModel, backend: Backend, watches: int = 128) -> None:
        """Load and events together have at most so many `watches` at once."""
        self._backend = backend
        self._places = Places(watches, "TOO_MANY_WATCHES", "watches of load and events")
        self._watches = LoadWatches(backend.view)
        config = served.checkpoint.config
        self._experts, self._layers = config.num_local_experts, config.num_hidden_layers

    async def GetStatus(self, request: pb.GetStatusRequest, caller: Caller) -> pb.GetStatusResponse:
        return _status(await self._backend.view(ask_head=not request.summary_only), request.summary_only)

    async def WatchExpertLoad(
        self, request: pb.WatchExpertLoadRequest, caller: Caller
    ) -> AsyncIterator[pb.WatchExpertLoadResponse]:
        interval = request.interval.ToNanoseconds() * 1e-9 if request.HasField("interval") else 1.0
        if violations := list(self._watch_violations(interval, request)):
            raise invalid(violations)
        layers = tuple(sorted(set(request.layers)) or range(self._layers))
        with self._places:
            async with aclosing(self._watches.messages(interval, layers)) as messages:
                async for message in messages:
                    yield message

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, caller: Caller
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        self._backend.look()
        if request.after_sequence < 0:
            raise invalid([Violation("after_sequence", "must be at least 0")])
        seen, events = request.after_sequence, self._backend.events
        with self._places:
            while True:
                if found := events.after(seen):
                    seen = found[-1].sequence
                    yield pb.WatchEventsResponse(events=map(_event, found))
                if not request.follow:
                    return
                await asyncio.sleep(_EVENT_SECONDS)

    async def ScaleExperts(self, request: pb.ScaleExpertsRequest, caller: Caller) -> pb.ScaleExpertsResponse:
        with audited(request, caller), _refusing():
            return await self._scale(request, caller.tenant)

    async def _scale(self, request: pb.ScaleExpertsRequest, requester: str) -> pb.ScaleExpertsResponse:
        if violations := list(self._scale_violations(request)):
            raise invalid(violations)
        controller = self._backend.take().controller
        wanted = {scale.expert: scale.replica_count for scale in request.experts}
        expected = request.expected_revision if request.HasField("expected_revision") else None

        def scale() -> tuple[int, list[Change]]:  # with its events, also if the call is cancelled meanwhile
            done = controller.scale(wanted, request.validate_only, expected)
            for expert, count in wanted.items() if not request.validate_only else ():
                cause = f"{count} replicas wanted"
                self._backend.events.add(Happening.EXPERT_SCALED, cause, expert=expert, requester=requester)
            return done

        revision, changes = await asyncio.to_thread(scale)
        return pb.ScaleExpertsResponse(
            placement_revision=revision,
            changes=[pb.ReplicaChange(expert=c.id.expert, node_id=c.node_id, start=c.start) for c in changes],
        )

    async def DrainNode(self, request: pb.DrainNodeRequest, caller: Caller) -> pb.DrainNodeResponse:
        with audited(request, caller), _refusing():
            return await self._drain(request, caller.tenant)

    async def _drain(self, request: pb.DrainNodeRequest, requester: str) -> pb.DrainNodeResponse:
        seconds = request.deadline.ToNanoseconds() * 1e-9 if request.HasField("deadline") else _DRAIN_SECONDS
        if seconds <= 0:
            raise invalid([Violation("deadline", "must be above 0 s")])
        controller = self._backend.take().controller
        kind = Happening.NODE_RESTORED if request.cancel else Happening.NODE_DRAINED

        def drain() -> None:  # with its event, as in `_scale`
            if controller.drain_node(request.node_id, seconds, request.cancel):
                self._backend.events.add(kind, node_id=request.node_id, requester=requester)

        await asyncio.to_thread(drain)
        return pb.DrainNodeResponse(state=pb.Node.STATE_READY if request.cancel else pb.Node.STATE_DRAINING)

    async def SetScalingPolicy(
        self, request: pb.SetScalingPolicyRequest, caller: Caller
    ) -> pb.SetScalingPolicyResponse:
        with audited(request, caller), _refusing():
            return await self._set_policy(request, caller.tenant)

    async def _set_policy(self, request: pb.SetScalingPolicyRequest, requester: str) -> pb.SetScalingPolicyResponse:
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
        self._backend.take().autoscaler.set(policy)
        state = "on" if policy.enabled else "off"
        self._backend.events.add(Happening.POLICY_CHANGED, f"scaling by load is {state}", requester=requester)
        return pb.SetScalingPolicyResponse(policy=_policy(policy))

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


@contextmanager
def _refusing() -> Iterator[None]:
    """Give a change that the controller refuses its status and reason."""
    try:
        yield
    except tuple(_REFUSED) as error:
        raise ApiError(*_REFUSED[type(error)], str(error)) from None


def _status(view: ClusterView, summary_only: bool) -> pb.GetStatusResponse:
    replicas = view.replicas
    response = pb.GetStatusResponse(
        snapshot_time=now(),
        placement_revision=replicas.revision,
        running_request_count=view.engine.running,
        waiting_request_count=view.engine.waiting,
        experts=[pb.Expert(expert=e, desired_replica_count=count) for e, count in enumerate(replicas.desired)],
    )
    if summary_only:
        return response
    response.heads.add(
        node_id=view.head.node_id if view.head else "",
        state=pb.REPLICA_STATE_READY if view.head else pb.REPLICA_STATE_UNREACHABLE,
        restart_count=view.engine.head_restarts,
    )
    if view.policy:
        response.policy.CopyFrom(_policy(view.policy))
    response.events.extend(map(_event, view.events))
    response.nodes.extend(_node(node, node.node_id in replicas.draining) for node in replicas.nodes)
    doubted = view.head.doubted if view.head else frozenset()
    for expert, load in zip(response.experts, since_start(view).experts, strict=True):
        members = [member for member in replicas.members if member.id.expert == expert.expert]
        expert.replicas.extend(_replica(member, member.id in doubted, view.device) for member in members)
        expert.load.CopyFrom(whole(load))
        expert.note = replicas.notes.get(expert.expert, "")
    return response


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


def _event(event: Event) -> pb.Event:
    message = pb.Event(
        sequence=event.sequence,
        kind=pb.Event.Kind.Value(f"KIND_{event.kind.name}"),
        expert=event.expert,
        replica=event.replica,
        node_id=event.node_id,
        cause=event.cause,
        requester=event.requester,
    )
    message.event_time.FromMilliseconds(int(event.at * 1000))
    return message


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
