"""A thread that makes the replicas of all experts what they should be: each round gathers facts from Ray, has
`cluster.policy.replicas.membership` decide, and acts through `actors.seams.ClusterOps`.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from actors.replica import ReplicaId
from actors.seams import ClusterOps
from actors.usage import HeadUsage
from cluster.control.errors import HeadNode, NoSuchNode, RevisionMoved
from cluster.control.nodes import Nodes
from cluster.control.ticker import Ticker
from cluster.observe.events import Event, EventLog, HedgeWatch, Kind
from cluster.observe.said_once import SaidOnce
from cluster.observe.view import Snapshot
from cluster.policy.replicas.lifecycle import Member, State
from cluster.policy.replicas.membership import Actions, Facts, Membership
from cluster.policy.replicas.reconcile import Change

log = logging.getLogger("eightwinds.controller")

_BUSY_SECONDS = 0.1  # between ticks while a replica starts or drains
_IDLE_SECONDS = 0.25  # ... and otherwise: the end of a process is seen within this


class Controller:
    """Any thread may call `usage`, and `scale`, `drain_node`, `snapshot` and `unserved`, which take the lock. Members
    change in the controller's own thread alone (`tick`): it changes them under the lock, and reads them without. Ray is
    never called under the lock, because it may take seconds. Members are immutable: a snapshot may leave the lock.
    """

    def __init__(
        self,
        ops: ClusterOps,
        membership: Membership,
        clock: Callable[[], float] = time.monotonic,
        events: EventLog | None = None,
        keep: Callable[[Sequence[int], Mapping[str, float]], None] = lambda counts, drains: None,
    ) -> None:
        """`membership` has adopted what runs already. `start` begins the work. It notes in `events` what happens, and
        has counts and drains kept when they have changed: `Wishes.keep_replicas`.
        """
        self._ops, self._membership, self._clock, self._keep = ops, membership, clock, keep
        self._kept: tuple[Sequence[int], Mapping[str, float]] = membership.desired.counts, membership.desired.avoided
        self._lock, self._keeping = threading.Lock(), threading.Lock()
        self._events = events or EventLog()
        self._hedges = HedgeWatch(self._events, clock)
        self._nodes = Nodes(ops.nodes, (m.node_id for m in membership.members.values()), clock, self._events)
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
        """`Membership.scale`; returns the revision from then on, and what will start and end. Raises RevisionMoved."""
        nodes = self._nodes.fresh()
        with self._lock:
            desired = self._membership.desired
            if expected_revision not in (None, desired.revision):
                raise RevisionMoved(f"the placement has revision {desired.revision}, not {expected_revision}")
            changes = self._membership.placed(self._membership.changes(wanted), nodes)
            if not validate_only:
                self._membership.scale(wanted, afresh)
            revision = desired.revision
        self._keep_wishes()
        self._ticker.wake()
        return revision, changes

    def drain_node(self, node_id: str, seconds: float, cancel: bool = False) -> bool:
        """Move the replicas of a node to others and put none there. This ends with `cancel`, or if they have not moved
        within `seconds`. False if there was nothing to cancel. Raises NoSuchNode or HeadNode.
        """
        if not any(node.alive and node.node_id == node_id for node in self._ops.nodes()):
            raise NoSuchNode(f"there is no node {node_id!r}; GetStatus lists them")
        if not cancel:
            usage = self._ops.usage()
            if usage is None:
                raise HeadNode("the head does not answer, and may run on this node: try again when it is back")
            if usage.node_id == node_id:
                raise HeadNode("the head runs on this node and cannot be moved while it serves; move `serve` instead")
        with self._lock:
            desired = self._membership.desired
            changed = not cancel or node_id in desired.avoided
            if cancel:
                desired.undrain(node_id)
            else:
                desired.drain(node_id, self._clock() + seconds)
        self._keep_wishes()
        self._ticker.wake()
        return changed

    def snapshot(self) -> Snapshot:
        nodes = self._nodes.fresh()
        with self._lock:
            m, d = self._membership, self._membership.desired
            members = tuple(member for _, member in sorted(m.members.items()))
            avoided, restarts = frozenset(d.avoided), tuple(m.restarts)
            return Snapshot(d.revision, d.counts, members, m.remarks(), nodes, avoided, restarts)

    def unserved(self) -> list[int]:
        with self._lock:
            return self._membership.unserved()

    def usage(self) -> HeadUsage | None:
        return self._hedges.seen(self._ops.usage())

    def start(self) -> None:
        self._ticker.start()

    def stop(self) -> None:
        self._ticker.stop()

    def _keep_wishes(self) -> None:
        with self._keeping:  # Ray is called, so it is another lock; the newest wishes are written last
            with self._lock:
                wishes = counts, avoided = self._membership.desired.counts, self._membership.desired.avoided
            if wishes != self._kept:
                now = self._clock()
                self._keep(counts, {node_id: until - now for node_id, until in avoided.items()})
                self._kept = wishes

    # ---- the controller's thread ----

    def _turn(self) -> None:
        self._busy = False  # also if the tick raises
        self._busy = self.tick()

    def tick(self) -> bool:
        """One round; whether there is more to do soon."""
        now = self._clock()
        facts = self._gather(now)
        before = dict(self._membership.members)
        with self._lock:
            actions = self._membership.update(facts, now)
        self._ended = frozenset()
        self._keep_wishes()
        self._report(before, facts, actions)
        self._act(actions, now)
        return not self._membership.settled()

    def _gather(self, now: float) -> Facts:
        m = self._membership
        self._ended |= self._ops.ended()
        vitals = self._ops.ask(m.to_ask(self._ended))
        cut_off = dict.fromkeys(self._ended, "")
        for kind, found in (("has ended or is cut off", cut_off), ("is lost", vitals.lost), ("is away", vitals.away)):
            for replica_id in found.keys() & m.members.keys():
                self._said.warn(now, f"expert %d replica %d {kind}", *replica_id, detail=found[replica_id])
        if vitals.lost:
            self._nodes.outdated()  # perhaps with its node, where no other shall begin then
        nodes = self._nodes.fresh() if m.asks_for_nodes(vitals.lost) else None
        usage = self._ops.usage() if m.retiring(now) else None
        return Facts(self._ended, vitals, nodes, usage.queued_rows if usage is not None else None)

    def _report(self, before: Mapping[ReplicaId, Member], facts: Facts, actions: Actions) -> None:
        """Note what happened to the members that there were `before` the update."""
        members, pulses, lost = self._membership.members, facts.vitals.pulses, facts.vitals.lost
        for replica_id, member in before.items():
            current = members.get(replica_id)  # None, or another replica that has its index again
            another = replica_id in pulses and pulses[replica_id].incarnation != member.incarnation
            ended = another or replica_id in lost or replica_id in actions.given_up
            if ended and member.state in (State.READY, State.UNREACHABLE):
                self._tell(Kind.REPLICA_DIED, member)  # not if only its watch broke: that may be the network's
            if replica_id in lost and member.state is not State.RETIRING:  # no other is started for a retired one
                self._tell(Kind.REPLICA_LOST, member, lost[replica_id])
            if replica_id in actions.given_up:
                log.error("expert %d: %s", replica_id.expert, actions.given_up[replica_id])
                self._tell(Kind.REPLICA_FAILED, member, actions.given_up[replica_id])
            elif member.state is State.RETIRING and (current is None or current.state is not State.RETIRING):
                self._tell(Kind.REPLICA_RETIRED, member)
        for node_id, left in actions.undrained.items():
            log.error("node %s takes replicas again: %s could not be moved in time", node_id, left)
            self._events.add(Event(Kind.NODE_RESTORED, f"{left} could not be moved in time", node_id=node_id))

    def _tell(self, kind: Kind, member: Member, cause: str = "") -> None:
        expert, index = member.id
        self._events.add(Event(kind, cause, expert=expert, replica=index, node_id=member.node_id))

    def _act(self, actions: Actions, now: float) -> None:
        """Carry the actions out. A stop that fails is repeated in the next round; the head is told all the same."""
        stopped: list[ReplicaId] = []
        started: list[ReplicaId] = []
        failure: Exception | None = None
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
        finally:
            with self._lock:
                self._membership.done(actions, stopped, started)
                self._membership.check()
        if actions.publish is not None:
            self._publish(actions.publish, now)
        if failure is not None:
            raise failure

    def _publish(self, incarnations: Mapping[ReplicaId, str], now: float) -> None:
        cold: Collection[ReplicaId] | None = None
        try:
            cold = self._ops.publish(incarnations)
        finally:
            with self._lock:
                joined = self._membership.told(incarnations, cold, now)
            for member in joined:
                self._tell(Kind.REPLICA_RESTARTED if member.served else Kind.REPLICA_JOINED, member)
