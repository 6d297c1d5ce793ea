"""The ClusterService: what operators see of the cluster and change in it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import asdict, fields
from typing import Any

from google.protobuf import timestamp

from actors.vitals import NodeInfo
from cluster.control.errors import HeadNode, NoSuchNode, ReplicasFixed, RevisionMoved
from cluster.engine.served_model import ServedModel
from cluster.gateway.audit import audited
from cluster.gateway.auth import Caller
from cluster.gateway.backend import Backend
from cluster.gateway.errors import ApiError, ErrorKind, Violation, Violations, invalid
from cluster.gateway.places import Places
from cluster.gateway.rpc.expert_stream import LoadWatches, whole
from cluster.gateway.rpc.times import duration, seconds
from cluster.observe.events import Event, Kind
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
_REFUSED: dict[type[Exception], tuple[ErrorKind, str]] = {
    ReplicasFixed: (ErrorKind.PRECONDITION, "REPLICAS_FIXED"),
    RevisionMoved: (ErrorKind.ABORTED, "REVISION_MOVED"),
    NoSuchNode: (ErrorKind.NOT_FOUND, "NODE_NOT_FOUND"),
    HeadNode: (ErrorKind.PRECONDITION, "HEAD_NODE"),
}


class ClusterService:
    """See protos/eightwinds/v1/cluster.proto. Handlers take a Caller where gRPC's own have a context."""

    def __init__(self, served: ServedModel, backend: Backend, watches: int) -> None:
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
        interval = seconds(request.interval) if request.HasField("interval") else 1.0
        allowed = f"must be {_LEAST_INTERVAL:g} s to {_LONGEST_INTERVAL:g} s"
        found = Violations()
        found.unless(_LEAST_INTERVAL <= interval <= _LONGEST_INTERVAL, "interval", allowed)
        for i, layer in enumerate(request.layers):
            found.unless(0 <= layer < self._layers, f"layers[{i}]", f"must be 0 to {self._layers - 1}")
        found.raise_any()
        layers = tuple(sorted(set(request.layers)) or range(self._layers))
        with self._places:
            async with aclosing(self._watches.messages(interval, layers)) as messages:
                async for message in messages:
                    yield message

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, caller: Caller
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        self._backend.require(new_work=False)
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
            self._check_scale(request)
            controller = self._backend.require().controller
            wanted = {scale.expert: scale.replica_count for scale in request.experts}
            expected = request.expected_revision if request.HasField("expected_revision") else None

            def scale() -> tuple[int, list[Change]]:  # with its events, also if the call is cancelled meanwhile
                done = controller.scale(wanted, request.validate_only, expected)
                for expert, count in wanted.items() if not request.validate_only else ():
                    cause = f"{count} replicas wanted"
                    self._backend.events.add(Event(Kind.EXPERT_SCALED, cause, expert=expert, requester=caller.tenant))
                return done

            revision, changes = await asyncio.to_thread(scale)
        return pb.ScaleExpertsResponse(
            placement_revision=revision,
            changes=[pb.ReplicaChange(expert=c.id.expert, node_id=c.node_id, start=c.start) for c in changes],
        )

    async def DrainNode(self, request: pb.DrainNodeRequest, caller: Caller) -> pb.DrainNodeResponse:
        with audited(request, caller), _refusing():
            deadline = seconds(request.deadline) if request.HasField("deadline") else _DRAIN_SECONDS
            if deadline <= 0:
                raise invalid([Violation("deadline", "must be above 0 s")])
            controller = self._backend.require().controller
            kind = Kind.NODE_RESTORED if request.cancel else Kind.NODE_DRAINED

            def drain() -> None:  # with its event, as above
                if controller.drain_node(request.node_id, deadline, request.cancel):
                    self._backend.events.add(Event(kind, node_id=request.node_id, requester=caller.tenant))

            await asyncio.to_thread(drain)
        return pb.DrainNodeResponse(state=pb.Node.STATE_READY if request.cancel else pb.Node.STATE_DRAINING)

    async def SetScalingPolicy(
        self, request: pb.SetScalingPolicyRequest, caller: Caller
    ) -> pb.SetScalingPolicyResponse:
        with audited(request, caller), _refusing():
            given: dict[str, Any] = {field.name: getattr(request.policy, field.name) for field in fields(ScalingPolicy)}
            policy = ScalingPolicy(**given | {"cooldown": seconds(request.policy.cooldown)})
            if problems := policy.problems(self._experts):
                raise invalid([Violation(f"policy.{field}", why) for field, why in problems])
            await asyncio.to_thread(self._backend.require().autoscaler.set, policy)  # it is kept in Ray
            state = "on" if policy.enabled else "off"
            self._backend.events.add(Event(Kind.POLICY_CHANGED, f"scaling by load is {state}", requester=caller.tenant))
        return pb.SetScalingPolicyResponse(policy=_policy(policy))

    def _check_scale(self, request: pb.ScaleExpertsRequest) -> None:
        found, seen = Violations(), set[int]()
        found.unless(bool(request.experts), "experts", "must name at least one expert")
        for i, scale in enumerate(request.experts):
            path = f"experts[{i}]"
            if not 0 <= scale.expert < self._experts:
                found.add(f"{path}.expert", f"must be 0 to {self._experts - 1}")
            elif scale.expert in seen:
                found.add(f"{path}.expert", f"expert {scale.expert} is named twice")
            seen.add(scale.expert)
            allowed = 1 <= scale.replica_count <= _MOST_REPLICAS
            found.unless(allowed, f"{path}.replica_count", f"must be 1 to {_MOST_REPLICAS}")
        found.raise_any()


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
        snapshot_time=timestamp.from_current_time(),
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
    return pb.ScalingPolicy(**asdict(policy) | {"cooldown": duration(policy.cooldown)})


def _replica(member: Member, doubted: bool, device: str) -> pb.Replica:
    state = State.UNREACHABLE if doubted and member.state is State.READY else member.state
    return pb.Replica(
        replica=member.id.index,
        node_id=member.node_id,
        state=pb.ReplicaState.Value(f"REPLICA_STATE_{state.value.upper()}"),
        pid=member.pid,
        restart_count=member.restarts,
        device=device,
    )


def _event(event: Event) -> pb.Event:
    plain = asdict(event)
    at, kind = plain.pop("at"), plain.pop("kind")
    when = timestamp.from_milliseconds(int(at * 1000))
    return pb.Event(**plain, event_time=when, kind=pb.Event.Kind.Value(f"KIND_{kind.name}"))


def _node(node: NodeInfo, draining: bool) -> pb.Node:
    state = pb.Node.STATE_DRAINING if draining else pb.Node.STATE_READY
    return pb.Node(
        id=node.node_id,
        address=node.address,
        state=state if node.alive else pb.Node.STATE_LOST,
        accelerator_count=node.accelerators,
        memory_total_bytes=node.memory_total,
        memory_used_bytes=node.memory_used,
        calls_per_second=node.speed,
    )
