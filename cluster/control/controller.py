"""The controller: a thread that makes the replicas of all experts what they should be, and sees when they end.

`cluster.policy.replicas.membership` decides, `actors.seams.ClusterOps` acts, the controller carries from one to the
other: each round gathers facts from Ray, has the membership decide, and acts on Ray.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from actors.replica import ReplicaId
from actors.seams import ClusterOps
from actors.usage import HeadUsage
from cluster.control.errors import HeadNode, NoSuchNode, RevisionMoved
from cluster.control.nodes import Nodes
from cluster.control.ticker import Ticker
from cluster.observe.events import EventLog, HedgeWatch, Kind
from cluster.observe.said_once import SaidOnce
from cluster.observe.view import Snapshot
from cluster.policy.replicas.lifecycle import Member, State
from cluster.policy.replicas.membership import Actions, Facts, Membership
from cluster.policy.replicas.reconcile import Change

log = logging.getLogger("eightwinds.controller")

_BUSY_SECONDS = 0.1  # between ticks while a replica starts or drains
_IDLE_SECONDS = 0.25  # ... and otherwise: the end of a process is seen within this


class Controller:
    """Owns the membership.

    Any thread may call `scale`, `drain_node`, `snapshot`, `unserved` and `load`, which read the members and change
    what is desired, under the lock. Members begin, change and end in the controller's own thread alone (`tick`): it
    changes them under the lock, and reads them without. Ray is never called under the lock, because it may take
    seconds. Members are immutable, so that a snapshot may leave the lock.
    """

    def __init__(
        self,
        ops: ClusterOps,
        membership: Membership,
        clock: Callable[[], float] = time.monotonic,
        events: EventLog | None = None,
    ) -> None:
        """`membership` has adopted what runs already. `start` begins the work. What happens is noted in `events`."""
        self._ops, self._membership, self._clock = ops, membership, clock
        self._lock = threading.Lock()
        self._events = events or EventLog()
        self._hedges = HedgeWatch(self._events, clock)
        self._nodes = Nodes(ops.nodes, clock, self._events)
        self._nodes.known(member.node_id for member in membership.members.values())
        self._said = SaidOnce(log)
        self._ended: frozenset[ReplicaId] = frozenset()  # processes whose end no round has taken in yet
        self._busy = True
        self._ticker = Ticker("controller", self._turn, lambda: _BUSY_SECONDS if self._busy else _IDLE_SECONDS)

    # ---- for any thread ----

    def scale(
        self,
        wanted: Mapping[int, int],
        validate_only: bool = False,
        expected_revision: int | None = None,
        afresh: bool = True,
    ) -> tuple[int, list[Change]]:
        """Set the replica counts of these experts; the revision from then on, and what will start and end. `afresh`
        clears the start back-off: the operator may have fixed the cause. Raises RevisionMoved.
        """
        nodes = self._nodes.fresh()
        with self._lock:
            desired = self._membership.desired
            if expected_revision is not None and expected_revision != desired.revision:
                raise RevisionMoved(f"the placement has revision {desired.revision}, not {expected_revision}")
            changes = self._membership.placed(self._membership.changes(wanted), nodes)
            if not validate_only:
                self._membership.scale(wanted, afresh)
            revision = desired.revision
        self._ticker.wake()
        return revision, changes

    def drain_node(self, node_id: str, seconds: float, cancel: bool = False) -> None:
        """Move the replicas of a node to others, and put none there from now on; it takes replicas again if they have
        not moved within `seconds`, or with `cancel`. Raises NoSuchNode or HeadNode.
        """
        if not any(node.alive and node.node_id == node_id for node in self._ops.nodes()):
            raise NoSuchNode(f"there is no node {node_id!r}; GetStatus lists them")
        if not cancel:
            usage = self._ops.load()
            if usage is None:
                raise HeadNode("the head does not answer, and may run on this node: try again when it is back")
            if usage.node_id == node_id:
                raise HeadNode("the head runs on this node and cannot be moved while it serves; move `serve` instead")
        with self._lock:
            if cancel:
                self._membership.desired.undrain(node_id)
            else:
                self._membership.desired.drain(node_id, self._clock() + seconds)
        self._ticker.wake()

    def snapshot(self) -> Snapshot:
        nodes = self._nodes.fresh()
        with self._lock:
            m = self._membership
            members = tuple(member for _, member in sorted(m.members.items()))
            return Snapshot(
                m.desired.revision,
                m.desired.counts,
                members,
                m.remarks(),
                nodes,
                frozenset(m.desired.avoided),
                tuple(m.restarts),
            )

    def unserved(self) -> list[int]:
        """Experts of which no replica is ready."""
        with self._lock:
            return self._membership.unserved()

    def load(self) -> HeadUsage | None:
        """What the replicas do; None while the head does not answer."""
        return self._hedges.seen(self._ops.load())

    def start(self) -> None:
        self._ticker.start()

    def stop(self, timeout: float = 15.0) -> None:
        """End the thread; the replicas stay."""
        self._ticker.stop(timeout)

    # ---- the controller's thread ----

    def _turn(self) -> None:
        self._busy = False
        self._busy = self.tick()

    def tick(self) -> bool:
        """One round; whether there is more to do soon."""
        now = self._clock()
        facts = self._gather(now)
        before = dict(self._membership.members)
        with self._lock:
            actions = self._membership.update(facts, now)
        self._ended = frozenset()
        self._report(before, facts, actions)
        self._act(actions, now)
        return not self._membership.settled()

    def _gather(self, now: float) -> Facts:
        m = self._membership
        self._ended |= self._ops.ended()
        vitals = self._ops.ask(m.to_ask(self._ended))
        for kind, found in (
            ("has ended", dict.fromkeys(self._ended, "")),
            ("is lost", vitals.lost),
            ("is away", vitals.away),
        ):
            for replica_id in found.keys() & m.members.keys():
                self._said.warn(now, f"expert %d replica %d {kind}", *replica_id, detail=found[replica_id])
        if vitals.lost:
            self._nodes.outdated()  # perhaps with its node, where no other shall begin then
        starting = vitals.lost or any(change.start for change in m.changes())
        usage = self._ops.load() if m.draining(now) else None
        return Facts(
            self._ended,
            vitals,
            self._nodes.fresh() if starting else None,
            usage.queued_rows if usage is not None else None,
        )

    def _report(self, before: Mapping[ReplicaId, Member], facts: Facts, actions: Actions) -> None:
        """Note what happened to the members that there were `before` the update."""
        for replica_id in facts.ended:
            self._tell(Kind.REPLICA_DIED, before.get(replica_id))
        for replica_id, why in facts.vitals.lost.items():
            member = before.get(replica_id)
            if member is not None and member.state is not State.DRAINING:  # no other is started for a retired one
                self._tell(Kind.REPLICA_LOST, member, why)
        for replica_id, why in actions.given_up.items():
            log.error("expert %d: %s", replica_id.expert, why)
            self._tell(Kind.REPLICA_FAILED, before.get(replica_id), why)
        for node_id, left in actions.undrained.items():
            log.error("node %s takes replicas again: %s could not be moved in time", node_id, left)
            self._events.add(Kind.NODE_RESTORED, f"{left} could not be moved in time", node_id=node_id)
        retiring = [m for m in before.values() if m.state is State.DRAINING and m.id not in actions.given_up]
        for member in retiring:
            current = self._membership.members.get(member.id)  # None, or another replica that has its index again
            if current is None or current.state is not State.DRAINING:
                self._tell(Kind.REPLICA_RETIRED, member)

    def _tell(self, kind: Kind, member: Member | None, cause: str = "") -> None:
        if member is not None:
            expert, index = member.id
            self._events.add(kind, cause, expert=expert, replica=index, node_id=member.node_id)

    def _act(self, actions: Actions, now: float) -> None:
        """Carry the actions out. A stop that fails is repeated in the next round; the head is told all the same."""
        stopped: list[ReplicaId] = []
        started: list[ReplicaId] = []
        cold: Collection[ReplicaId] | None = None
        told, failure = False, None
        try:
            for replica_id in actions.stop:
                try:
                    self._ops.stop(replica_id)
                except Exception as error:
                    failure = error
                else:
                    stopped.append(replica_id)
            for change in actions.start:
                if change.id not in actions.stop or change.id in stopped:
                    self._ops.start(change.id, change.node_id, actions.avoided)
                    started.append(change.id)
            if actions.publish is not None:
                told = True
                cold = self._ops.publish(actions.publish)
            if failure is not None:
                raise failure
        finally:
            self._note(actions if told else replace(actions, publish=None), stopped, started, cold, now)

    def _note(
        self,
        actions: Actions,
        stopped: Collection[ReplicaId],
        started: Collection[ReplicaId],
        cold: Collection[ReplicaId] | None,
        now: float,
    ) -> None:
        members = self._membership.members
        served = {m.id: m.served for m in members.values() if m.state is State.STARTING}
        with self._lock:
            self._membership.done(actions, stopped, started, cold, now)
            self._membership.check()
        for replica_id, before in served.items():
            member = members.get(replica_id)
            if member is not None and member.state is State.READY:
                self._tell(Kind.REPLICA_RESTARTED if before else Kind.REPLICA_JOINED, member)
