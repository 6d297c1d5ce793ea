"""The replicas of all experts: how many are wanted, which there are, and what a round of the controller does about it.

Only READY replicas are routed to, and UNREACHABLE ones of an expert that has no other. A process that ends before its
replica has joined is a failure, and so is a warm-up call that it does not answer; after a few failures in a row the
replica is given up.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from actors.replica import ReplicaId
from actors.vitals import NodeInfo, Pulse, Vitals
from cluster.policy.replicas.desired import Desired
from cluster.policy.replicas.known_routes import KnownRoutes
from cluster.policy.replicas.lifecycle import Member, ReplicaOptions, State
from cluster.policy.replicas.placement import assign, paces
from cluster.policy.replicas.reconcile import Change, reconcile

_SETTLE_SECONDS = 0.3  # a call may be on its way to a replica although the head no longer routes to it


@dataclass(frozen=True, slots=True)
class Facts:
    """Processes that have `ended` or are cut off, answers, nodes, and rows under way by replica. Without `nodes`
    nothing starts, and without `queued_rows` no replica is idle.
    """

    ended: Collection[ReplicaId] = ()
    vitals: Vitals = field(default_factory=Vitals)
    nodes: Collection[NodeInfo] | None = None
    queued_rows: Mapping[ReplicaId, int] | None = None


@dataclass(frozen=True, slots=True)
class Actions:
    """The actions of a round, in this order. `given_up` has the reason for each failed replica among those to `stop`.
    `undrained` nodes take replicas again, because these replicas could not be moved in time.
    """

    stop: list[ReplicaId]
    start: list[Change]
    publish: dict[ReplicaId, str] | None  # incarnations; None: the head knows
    avoided: frozenset[str]
    given_up: Mapping[ReplicaId, str]
    undrained: Mapping[str, list[ReplicaId]]


class Membership:
    def __init__(self, desired: Sequence[int], options: ReplicaOptions | None = None) -> None:
        self.options = options or ReplicaOptions()
        self.desired = Desired(desired)
        self.members: dict[ReplicaId, Member] = {}
        self.restarts = [0] * len(desired)  # of each expert's processes, whichever index they had
        self._past: dict[ReplicaId, Member] = {}  # replicas being replaced: their counts carry over to the successor
        self._stopping: set[ReplicaId] = set()  # no members any more, but their processes are not known to have ended
        self._routes = KnownRoutes({})
        self._paces: Mapping[str, float] = {}  # of the nodes, as they were seen last

    # ---- what is wanted: for any thread ----

    def scale(self, wanted: Mapping[int, int], afresh: bool = True) -> None:
        """`afresh` also forgets earlier failed starts and back-off: the operator may have fixed the cause."""
        self.desired.scale(wanted)
        if afresh:
            self._past = {replica_id: m for replica_id, m in self._past.items() if replica_id.expert not in wanted}
            for expert in wanted:
                self.desired.begin_afresh(expert)

    def changes(self, wanted: Mapping[int, int] | None = None) -> list[Change]:
        """For the desired counts, or for `wanted`."""
        counts = dict(enumerate(self.desired.counts)) | dict(wanted or {})
        return reconcile(counts, self.members.values(), self.desired.avoided, self._paces)

    def placed(self, changes: Sequence[Change], nodes: Collection[NodeInfo]) -> list[Change]:
        usable = [node for node in nodes if node.alive and node.node_id not in self.desired.avoided]
        where = assign([c.id for c in changes if c.start], usable, self._nodes(), self.options.needs)
        return [replace(change, node_id=where.get(change.id, change.node_id)) for change in changes]

    def remarks(self) -> dict[int, str]:
        """The notes, and for an expert without one why a replica that has been there is away."""
        away = {m.id.expert: f"replica {m.id.index} is away: {m.away}" for m in self.members.values() if m.away}
        return away | self.desired.notes

    def unserved(self) -> list[int]:
        served = {m.id.expert for m in self.members.values() if m.state is State.READY}
        return [expert for expert in range(len(self.restarts)) if expert not in served]

    # ---- what there is: for the controller's thread ----

    def adopt(self, pulses: Mapping[ReplicaId, Pulse], now: float) -> None:
        """These replicas run and have their weights, and the head routes to them."""
        for replica_id, pulse in pulses.items():
            self.put(Member(replica_id, State.STARTING, now).answered(pulse, now).joined(now))
        self._routes = KnownRoutes(self.routed())

    def put(self, member: Member) -> None:
        before = self.members.get(member.id, member)
        self.restarts[member.id.expert] += member.restarts - before.restarts
        self.members[member.id] = member

    def of(self, expert: int) -> list[Member]:
        return [m for replica_id, m in sorted(self.members.items()) if replica_id.expert == expert]

    def routed(self) -> dict[ReplicaId, str]:
        """Incarnations of the replicas that the head should route to, with those that may join."""
        found: dict[ReplicaId, str] = {}
        for expert in range(len(self.restarts)):
            members = self.of(expert)
            usable = [m for m in members if m.state is State.READY or (m.state is State.STARTING and m.loaded)]
            usable = usable or [m for m in members if m.state is State.UNREACHABLE]
            found |= {m.id: m.incarnation for m in usable}
        return found

    def to_ask(self, ended: Collection[ReplicaId] = ()) -> list[ReplicaId]:
        """Replicas to ask how they are, when these processes have ended."""
        unsettled = (State.STARTING, State.UNREACHABLE)
        waiting = [m for m in self.members.values() if m.state in unsettled or m.id in ended]
        return [m.id for m in waiting if m.state is not State.RETIRING]

    def asks_for_nodes(self, lost: Collection[ReplicaId]) -> bool:
        """Whether a round may start or retire a replica when these are lost, and so has to know the nodes."""
        return bool(lost) or bool(self.changes())

    def retiring(self, now: float) -> list[Member]:
        """Retired replicas that no call is on its way to, unless the head still routes to them."""
        members = self.members.values()
        return [m for m in members if m.state is State.RETIRING and now - m.since >= _SETTLE_SECONDS]

    def settled(self) -> bool:
        """Whether there is nothing to do before something happens."""
        return not self._stopping and all(m.state is State.READY for m in self.members.values())

    # ---- a round: for the controller's thread ----

    def update(self, facts: Facts, now: float) -> Actions:
        """Take the facts in, and decide what to do about them."""
        if facts.nodes is not None:
            self._paces = paces(node for node in facts.nodes if node.alive)
        failed = self._observe(facts, now)
        overdue = {m.id: why for m in self.members.values() if (why := m.overdue(self.options, now))}
        given_up = {r: f"replica {r.index} was not started: {why}" for r, why in (overdue | failed).items()}
        for replica_id, why in given_up.items():
            self.take_back(replica_id, why, now)
            self._stopping.add(replica_id)
        lost = [m for m in self.members.values() if m.state is State.LOST]
        for member in lost + [m for m in self.retiring(now) if self._is_idle(m, facts.queued_rows, now)]:
            self.remove(member.id)
            self._stopping.add(member.id)
        undrained = self.desired.expire_drains(self._nodes(), now)
        start = self._reconcile(facts.nodes, now)
        publish = self._routes.due(self.routed(), now)
        return Actions(sorted(self._stopping), start, publish, frozenset(self.desired.avoided), given_up, undrained)

    def done(self, actions: Actions, stopped: Collection[ReplicaId], started: Collection[ReplicaId]) -> None:
        """Take in which stops and starts succeeded; the next round tries the others again."""
        self._stopping.difference_update(stopped)
        for change in actions.start:
            if change.id in started:
                self._past.pop(change.id, None)
            else:
                del self.members[change.id]

    def told(
        self, incarnations: Mapping[ReplicaId, str], cold: Collection[ReplicaId] | None, now: float
    ) -> list[Member]:
        """The head was to route to these; `cold` did not answer its warm-up call, None: the head did not answer.
        Returns the members that have joined, as they were before.
        """
        routed = [self.members[replica_id] for replica_id in self._routes.told(incarnations, cold, now)]
        joined = [member for member in routed if member.state is State.STARTING]
        for member in joined:
            self.put(member.joined(now))
            self.desired.joined(member.id)
        for replica_id in cold or ():
            self.put(self.members[replica_id].cold())
        return joined

    def begin(self, replica_id: ReplicaId, node_id: str, now: float) -> None:
        assert replica_id not in self.members, f"{replica_id} is here already"
        past = self._past.get(replica_id)  # forgotten once the start has succeeded, or when an operator scales afresh
        self.put(past.successor(node_id, now) if past else Member(replica_id, State.STARTING, now, node_id))

    def remove(self, replica_id: ReplicaId) -> None:
        """A replica is to end; if it was lost, another will be started in its place."""
        member = self.members.pop(replica_id)
        if member.state is State.LOST:
            self._past[replica_id] = member

    def take_back(self, replica_id: ReplicaId, why: str, now: float) -> None:
        """A replica could not be started: note why, and want one less, unless it has served before and is missed."""
        member = self.members.pop(replica_id)
        self._past.pop(replica_id, None)
        self.desired.failed(replica_id, why, now)
        if member.served:
            restarts = bool(member.incarnation)
            self.restarts[replica_id.expert] += restarts
            self._past[replica_id] = replace(member, failures=0, restarts=member.restarts + restarts)
            return
        there = sum(m.state is not State.RETIRING for m in self.of(replica_id.expert))
        count = max(1, min(self.desired.counts[replica_id.expert], there))
        self.desired.scale({replica_id.expert: count})

    def _observe(self, facts: Facts, now: float) -> dict[ReplicaId, str]:
        """Returns the replicas that cannot load, and why."""
        members, vitals = self.members, facts.vitals
        for replica_id in members.keys() & facts.ended:
            self.put(members[replica_id].ended(now))
        failed: dict[ReplicaId, str] = {}
        for replica_id in members.keys() & vitals.pulses.keys():
            pulse = vitals.pulses[replica_id]
            if pulse.progress.error:
                failed[replica_id] = f"it could not load: {pulse.progress.error}"
            else:
                self.put(members[replica_id].answered(pulse, now))
        for replica_id in members.keys() & vitals.lost.keys():
            self.put(members[replica_id].lost(vitals.lost[replica_id], now))
        for replica_id in members.keys() & vitals.away.keys():
            self.put(members[replica_id].unanswered(vitals.away[replica_id]))
        return failed

    def _is_idle(self, member: Member, queued_rows: Mapping[ReplicaId, int] | None, now: float) -> bool:
        if now - member.since > self.options.retire_timeout:
            return True
        idle = queued_rows is not None and not queued_rows.get(member.id)
        return idle and not self._routes.may_reach(member.id)

    def _reconcile(self, nodes: Collection[NodeInfo] | None, now: float) -> list[Change]:
        begun: list[Change] = []
        for change in self.placed(self.changes(), nodes or ()):
            if not change.start:
                self.put(self.members[change.id].retired(now))
            elif nodes is not None and not self.desired.pauses(change.id.expert, now):
                self.begin(change.id, change.node_id, now)
                begun.append(change)
        return begun

    def _nodes(self) -> dict[ReplicaId, str]:
        return {m.id: m.node_id for m in self.members.values()}

    def check(self) -> None:
        """AssertionError unless ids and numbers agree."""
        assert all(replica_id == member.id for replica_id, member in self.members.items())
        assert all(count >= 1 for count in self.desired.counts)
        assert all(0 <= m.expert < len(self.restarts) and m.index >= 0 for m in self.members)
