"""The controller: a thread that makes the replicas of all experts what they should be, and sees when they end.

`cluster.policy.replicas.membership` decides, `actors.seams.ClusterOps` acts, this carries from one to the other.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from actors.replica import Key
from actors.seams import ClusterOps
from actors.usage import HeadUsage
from actors.vitals import NodeInfo, Pulse
from cluster.control.nodes import Nodes
from cluster.observe.said_once import SaidOnce
from cluster.observe.snapshot import Snapshot
from cluster.policy.replicas.backoff import Backoff
from cluster.policy.replicas.membership import Change, Member, Membership, State
from cluster.policy.replicas.route_table import Publication

log = logging.getLogger("eightwinds.controller")

_BUSY_SECONDS = 0.1  # between ticks while a replica starts or drains
_IDLE_SECONDS = 0.25  # ... and otherwise: the end of a process is seen within this
_SETTLE_SECONDS = 0.3  # a call may be on its way to a replica although the head no longer routes to it


class NoSuchNode(Exception):
    """There is no such node, or it is gone."""


class HeadNode(Exception):
    """The head runs there, or may, and cannot be moved."""


class RevisionMoved(Exception):
    """The desired numbers are not those that the caller knows."""


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """Seconds until a replica that found no node or does not load is given up, what Ray reserves for one, and seconds
    until one that does not drain is given up.
    """

    placement_timeout: float
    start_timeout: float
    needs: Mapping[str, float]
    drain_timeout: float = 30.0


class Controller:
    """Owns the membership. `scale`, `drain_node`, `snapshot` and `load` may be called from any thread."""

    def __init__(
        self,
        ops: ClusterOps,
        membership: Membership,
        options: ControllerOptions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`membership` holds what runs already. `start` begins the work."""
        self._ops, self._membership, self._options, self._clock = ops, membership, options, clock
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._publication = Publication(membership.routed())
        self._said = SaidOnce(log)
        self._backoff: Backoff[int] = Backoff()  # by expert, after starts that were given up
        self._drains: dict[str, float] = {}  # nodes that replicas move away from: until when
        self._nodes = Nodes(ops.nodes, options.needs or {}, clock)
        self._thread = threading.Thread(target=self._run, name="controller", daemon=True)

    # ---- callers' side ----

    def scale(
        self,
        wanted: Mapping[int, int],
        validate_only: bool = False,
        expected_revision: int | None = None,
        afresh: bool = True,
    ) -> tuple[int, list[Change]]:
        """Want so many replicas of these experts; the revision from then on, and what will start and end. `afresh`, at
        once, whatever has failed before: whoever asks may have mended it. Raises RevisionMoved.
        """
        nodes = self._nodes.fresh()
        with self._lock:
            if expected_revision is not None and expected_revision != self._membership.revision:
                raise RevisionMoved(f"the placement has revision {self._membership.revision}, not {expected_revision}")
            changes = self._placed(self._membership.changes(wanted), nodes)
            if not validate_only:
                self._membership.scale(wanted, afresh)
                for expert in wanted if afresh else ():
                    self._backoff.cleared(expert)
            revision = self._membership.revision
        self._wake.set()
        return revision, changes

    def drain_node(self, node_id: str, seconds: float, cancel: bool = False) -> None:
        """Move the replicas of a node to others, and put none there from now on; it takes replicas again if they have
        not moved within `seconds`, or with `cancel`. Raises NoSuchNode or HeadNode.
        """
        if not any(node.alive and node.node_id == node_id for node in self._ops.nodes()):
            raise NoSuchNode(f"there is no node {node_id!r}; GetStatus lists them")
        if not cancel:
            load = self._ops.load()
            if load is None:
                raise HeadNode("the head does not answer, and may run on this node: try again when it is back")
            if load.node_id == node_id:
                raise HeadNode("the head runs on this node and cannot be moved while it serves; move `serve` instead")
        with self._lock:
            (self._membership.avoided.discard if cancel else self._membership.avoided.add)(node_id)
            self._drains.pop(node_id, None)
            if not cancel:
                self._drains[node_id] = self._clock() + seconds
        self._wake.set()

    def snapshot(self) -> Snapshot:
        """What there is now."""
        nodes = self._nodes.fresh()
        with self._lock:
            m = self._membership
            members = tuple(replace(member) for _, member in sorted(m.members.items()))
            return Snapshot(
                m.revision, tuple(m.desired), members, m.remarks(), nodes, frozenset(m.avoided), tuple(m.restarts)
            )

    def unserved(self) -> list[int]:
        """Experts of which no replica is ready."""
        with self._lock:
            return self._membership.unserved()

    def load(self) -> HeadUsage | None:
        """What the replicas do; None while the head does not answer."""
        return self._ops.load()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout: float = 15.0) -> None:
        """End the thread; the replicas stay."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    # ---- the thread ----

    def _run(self) -> None:
        busy = True
        while not self._stopping:
            self._wake.wait(_BUSY_SECONDS if busy else _IDLE_SECONDS)
            self._wake.clear()
            try:
                busy = self.tick()
            except Exception:  # a bug of ours, or Ray's: what runs goes on, and the next tick tries again
                log.exception("the controller failed")
                busy = False

    def tick(self) -> bool:
        """One round; whether there is more to do soon."""
        now = self._clock()
        self._observe(now)
        self._expire(now)
        self._expire_drains(now)
        self._reconcile(now)
        self._publish(now)
        self._retire(now)
        with self._lock:
            self._membership.check()
            return any(member.state is not State.READY for member in self._membership.members.values())

    def _observe(self, now: float) -> None:
        for key in self._ops.ended():
            with self._lock:
                if key in self._membership.members:
                    self._said.warn(now, "expert %d replica %d has ended", *key)
                    self._membership.ended(key, now)
        vitals = self._ops.ask(self._membership.unsettled())
        for key, pulse in vitals.pulses.items():
            if pulse.progress.error:
                self._give_up(key, f"it could not load: {pulse.progress.error}", now)
            else:
                self._note(key, pulse, now)
        for key, why in vitals.lost.items():
            self._nodes.outdated()  # perhaps with its node, where no other shall begin then
            with self._lock:
                if key in self._membership.members:
                    self._said.warn(now, "expert %d replica %d is lost", *key, detail=why)
                    self._membership.lost(key, why, now)
        with self._lock:
            for key, why in vitals.away.items():
                if key in self._membership.members:
                    self._said.warn(now, "expert %d replica %d is away", *key, detail=why)
                    self._membership.away(key, why)

    def _note(self, key: Key, pulse: Pulse, now: float) -> None:
        with self._lock:
            if key in self._membership.members:
                ready = pulse.progress.ready
                self._membership.alive(key, pulse.incarnation, pulse.pid, pulse.node_id, ready, now)

    def _expire(self, now: float) -> None:
        o = self._options
        with self._lock:
            failed = self._membership.failed()
        for member in failed:
            why = f"it failed {member.failures} times before it was ready: {member.why}"
            self._give_up(member.key, why, now)
        for member in self._in_state(State.STARTING):
            if not member.incarnation and now - member.since > o.placement_timeout:
                needs = ", ".join(f"{name} {amount:g}" for name, amount in (o.needs or {}).items()) or "nothing"
                why = f"no node took it within {o.placement_timeout:g} s (it needs: {needs}; see `ray status`)"
                if member.away:
                    why = f"its process did not start within {o.placement_timeout:g} s: {member.away}"
                self._give_up(member.key, why, now)
            elif member.incarnation and not member.loaded and now - member.since > o.start_timeout:
                self._give_up(member.key, f"its weights were not loaded within {o.start_timeout:g} s", now)
        for member in self._in_state(State.UNREACHABLE):  # one that is silent may be slow, and is left alone
            if member.away and now - member.since > o.start_timeout:
                self._give_up(member.key, f"it did not come back within {o.start_timeout:g} s: {member.away}", now)

    def _expire_drains(self, now: float) -> None:
        with self._lock:
            for node_id in [node_id for node_id, end in self._drains.items() if now >= end]:
                del self._drains[node_id]
                left = [m.key for m in self._membership.members.values() if m.node_id == node_id]
                if left:
                    log.error("node %s takes replicas again: %s could not be moved in time", node_id, left)
                    self._membership.avoided.discard(node_id)

    def _give_up(self, key: Key, why: str, now: float) -> None:
        expert, slot = key
        why = f"replica {slot} was not started: {why}"
        log.error("expert %d: %s", expert, why)
        self._ops.stop(key)
        with self._lock:
            self._membership.take_back(key, why)
            self._backoff.failed(expert, now)

    def _reconcile(self, now: float) -> None:
        for member in self._in_state(State.LOST):
            self._ops.stop(member.key)
            with self._lock:
                self._membership.gone(member.key)
        with self._lock:
            changes = self._membership.changes()
        nodes = self._nodes.fresh() if any(change.start for change in changes) else ()
        for change in self._placed(changes, nodes):
            expert, _ = change.key
            if not change.start:
                with self._lock:
                    self._membership.drain(change.key, now)
            elif not self._backoff.pauses(expert, now):
                self._ops.start(change.key, change.node_id, frozenset(self._membership.avoided))
                with self._lock:
                    self._membership.begin(change.key, change.node_id, now)

    def _publish(self, now: float) -> None:
        with self._lock:
            routed = self._membership.routed()
        wanted = self._publication.due(routed, now)
        if wanted is None:
            return
        cold = self._ops.publish(wanted)
        with self._lock:
            for key in self._publication.told(wanted, cold, now):
                if self._membership.joined(key, now):
                    self._backoff.cleared(key[0])
            for key in cold or ():
                self._membership.cold(key)

    def _retire(self, now: float) -> None:
        draining = [m for m in self._in_state(State.DRAINING) if now - m.since >= _SETTLE_SECONDS]
        load = self._ops.load() if draining else None
        for member in draining:
            idle = load is not None and not load.queued_rows.get(member.key)
            left = idle and not self._publication.may_reach(member.key)
            if left or now - member.since > self._options.drain_timeout:
                self._ops.stop(member.key)
                with self._lock:
                    self._membership.gone(member.key)

    def _in_state(self, state: State) -> list[Member]:
        with self._lock:
            return [member for member in self._membership.members.values() if member.state is state]

    def _placed(self, changes: list[Change], nodes: tuple[NodeInfo, ...]) -> list[Change]:
        m = self._membership
        return self._nodes.place(changes, nodes, [member.placed for member in m.members.values()], m.avoided)
