"""The replicas of all experts: how many there should be, and in what state those are that there are. A data structure:
what is observed goes in, what to do comes out; the controller does it.

    STARTING -> READY -> DRAINING -> gone         a READY one whose process ended: UNREACHABLE -> STARTING -> READY,
                                                  or LOST when Ray says that it will not come back

Only READY replicas, and UNREACHABLE ones of an expert that has no other, are routed to. A process that ends before its
replica has joined is a failure, and so is a warm-up call that it does not answer; after a few in a row the attempt to
start it is one that `failed`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cluster.policy.replicas.placement import Placed, surplus

Key = tuple[int, int]  # expert, slot

MOST_FAILURES = 3  # in a row


class State(StrEnum):
    """Of a replica."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    UNREACHABLE = "unreachable"
    LOST = "lost"


@dataclass(slots=True)
class Member:
    """A replica. Times are seconds on the controller's clock; `since` is when it came into its state. `served` says
    whether it has ever joined, which is when it stops being an attempt; `failures` are counted since it last did.
    """

    key: Key
    state: State
    since: float
    node_id: str = ""
    pid: int = 0
    incarnation: str = ""
    restarts: int = 0
    failures: int = 0
    served: bool = False
    loaded: bool = False  # its weights are there: it may join
    away: str = ""  # why it cannot be asked: its process is about to start, or the network fails
    why: str = ""  # it is lost, or failed last

    @property
    def placed(self) -> Placed:
        """For the placement policy."""
        return Placed(*self.key, self.node_id)


@dataclass(frozen=True, slots=True)
class Change:
    """A replica that a scaling starts or ends."""

    key: Key
    node_id: str
    start: bool


class Membership:
    """Owns the members and the desired numbers. `revision` counts the changes of the desired numbers."""

    def __init__(self, desired: Sequence[int]) -> None:
        self.desired = list(desired)
        self.revision = 1
        self.members: dict[Key, Member] = {}
        self.notes: dict[int, str] = {}  # by expert: why its last scaling was taken back
        self.avoided: set[str] = set()  # nodes whose replicas shall move away
        self.restarts = [0] * len(self.desired)  # of each expert's processes, whichever slot they had
        self._noted: dict[int, Key] = {}  # by expert: whose note it is
        self._past: dict[Key, Member] = {}  # those that another is started in the place of

    def unserved(self) -> list[int]:
        """Experts of which no replica is ready."""
        served = {key[0] for key, member in self.members.items() if member.state is State.READY}
        return [expert for expert in range(len(self.desired)) if expert not in served]

    # ---- what is wanted ----

    def scale(self, wanted: Mapping[int, int], afresh: bool = True) -> None:
        """Want so many replicas of these experts; `afresh`, as if no attempt had failed."""
        for expert, count in wanted.items():
            assert count >= 1, "an expert keeps a replica"
            self.desired[expert] = count
            if afresh:
                self._forget_note(expert)
        if afresh:
            self._past = {key: member for key, member in self._past.items() if key[0] not in wanted}
        self.revision += 1

    def changes(self, wanted: Mapping[int, int] | None = None) -> list[Change]:
        """What there is to start and to end, by expert, so that numbers become the desired ones (or `wanted`), and
        nobody is on an avoided node: who is there ends once another is ready in its place.
        """
        desired = dict(enumerate(self.desired)) | dict(wanted or {})
        staying = {m.key: m.placed for m in self.members.values() if m.state is not State.DRAINING}
        found: list[Change] = []
        for expert, count in desired.items():
            members = [m for m in self.of(expert) if m.state is not State.DRAINING]
            moving = [m for m in members if m.node_id in self.avoided]
            there = [m for m in members if m.node_id not in self.avoided]
            taken = {m.key[1] for m in self.of(expert)}
            free = (slot for slot in range(len(taken) + count) if slot not in taken)
            found += [Change((expert, next(free)), "", True) for _ in range(count - len(there))]
            replaced = sum(m.state is State.READY for m in there) + len(moving) - count
            found += [Change(m.key, m.node_id, False) for m in moving[: max(0, replaced)]]
            ready = [m.placed for m in there if m.state is State.READY]
            others = [m.placed for m in there if m.state is not State.READY]
            excess = len(there) - count
            for candidates in (others, ready):
                for p in surplus(excess, candidates, staying.values()):
                    found.append(Change((p.expert, p.slot), p.node_id, False))
                    del staying[p.expert, p.slot]  # the next expert's shall not all go from the same node
                    excess -= 1
        return found

    def take_back(self, key: Key, why: str) -> None:
        """A replica could not be started: note why, and want one less, unless it has served before and is missed."""
        expert, _ = key
        self.notes[expert], self._noted[expert] = why, key
        member = self.members.pop(key)
        self._past.pop(key, None)
        if member.served:
            member.failures = 0
            if member.incarnation:
                self._restarted(member)
            self._past[key] = member
            return
        there = sum(m.state is not State.DRAINING for m in self.of(expert))
        self.desired[expert] = max(1, min(self.desired[expert], there))
        self.revision += 1

    def remarks(self) -> dict[int, str]:
        """The notes, and of experts without one why a replica that has been there is not now."""
        away = {m.key[0]: f"replica {m.key[1]} is away: {m.away}" for m in self.members.values() if m.away}
        return away | self.notes

    def _forget_note(self, expert: int) -> None:
        self.notes.pop(expert, None)
        self._noted.pop(expert, None)

    # ---- what is ----

    def of(self, expert: int) -> list[Member]:
        """The members of an expert, by slot."""
        return [m for key, m in sorted(self.members.items()) if key[0] == expert]

    def begin(self, key: Key, node_id: str, now: float) -> None:
        """A replica is being started."""
        assert key not in self.members, f"{key} is here already"
        self.members[key] = member = Member(key, State.STARTING, now, node_id)
        if past := self._past.pop(key, None):
            member.restarts, member.failures, member.served = past.restarts, past.failures, past.served
            member.why = past.why

    def drain(self, key: Key, now: float) -> None:
        """A replica shall go: it is routed to no more."""
        self._enter(self.members[key], State.DRAINING, now)

    def gone(self, key: Key) -> None:
        """A replica has ended."""
        del self.members[key]

    def ended(self, key: Key, now: float) -> None:
        """Its process has ended; Ray may restart it."""
        member = self.members[key]
        if member.state is not State.DRAINING:
            self._enter(member, State.UNREACHABLE, now)

    def lost(self, key: Key, why: str, now: float) -> None:
        """It will not come back by itself; the one that is started in its place counts as a restart."""
        member = self.members[key]
        if member.state not in (State.DRAINING, State.LOST):
            member.failures += member.state is State.STARTING
            self._restarted(member)
            member.why, self._past[key] = why, member
            self._enter(member, State.LOST, now)

    def alive(self, key: Key, incarnation: str, pid: int, node_id: str, loaded: bool, now: float) -> None:
        """It answered. A process other than the one before begins anew, and counts as a restart."""
        member = self.members[key]
        if member.incarnation not in ("", incarnation):
            if member.state is State.STARTING:
                member.failures, member.why = member.failures + 1, "its process ended"
            self._restarted(member)
        member.away = ""
        fresh = member.incarnation != incarnation
        member.incarnation, member.pid, member.node_id, member.loaded = incarnation, pid, node_id, loaded
        if member.state is State.UNREACHABLE and not fresh:
            self._enter(member, State.READY, now)  # the network had failed, not the process
        elif member.state is not State.DRAINING and fresh:
            self._enter(member, State.STARTING, now)

    def away(self, key: Key, why: str) -> None:
        """It cannot be asked just now, which it may survive."""
        self.members[key].away = why

    def cold(self, key: Key) -> None:
        """It did not answer a warm-up call."""
        member = self.members[key]
        if member.state is State.STARTING:
            member.failures, member.why = member.failures + 1, "it did not answer a warm-up call"

    def joined(self, key: Key, now: float) -> bool:
        """The head routes to it; whether that is new."""
        member = self.members[key]
        if member.state is not State.STARTING:
            return False
        member.served, member.failures, member.why = True, 0, ""
        self._enter(member, State.READY, now)
        if self._noted.get(key[0]) == key:
            self._forget_note(key[0])
        return True

    def failed(self) -> list[Member]:
        """Those that fail one time after the other without ever joining."""
        return [m for m in self.members.values() if m.failures >= MOST_FAILURES and m.state is not State.DRAINING]

    def routed(self) -> dict[Key, str]:
        """Incarnations of those that the head should route to, by key: with those that may join."""
        found: dict[Key, str] = {}
        for expert in range(len(self.desired)):
            members = self.of(expert)
            usable = [m for m in members if m.state is State.READY or (m.state is State.STARTING and m.loaded)]
            usable = usable or [m for m in members if m.state is State.UNREACHABLE]
            found |= {m.key: m.incarnation for m in usable}
        return found

    def unsettled(self) -> list[Key]:
        """Those to ask how they are."""
        return [m.key for m in self.members.values() if m.state in (State.STARTING, State.UNREACHABLE)]

    def _restarted(self, member: Member) -> None:
        member.restarts += 1
        self.restarts[member.key[0]] += 1

    def _enter(self, member: Member, state: State, now: float) -> None:
        if member.state is not state:
            member.state, member.since = state, now

    def check(self) -> None:
        """AssertionError unless keys and numbers agree."""
        assert all(key == member.key for key, member in self.members.items())
        assert all(count >= 1 for count in self.desired)
        assert all(0 <= expert < len(self.desired) and slot >= 0 for expert, slot in self.members)
