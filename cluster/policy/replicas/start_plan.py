"""Actors of an earlier start that are kept or replaced, and actors that are missing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from actors.replica import ReplicaId
from actors.specs import ActorReport, ActorSpec
from actors.vitals import NodeInfo
from cluster.policy.replicas.placement import assign, unused

Actor = ReplicaId | Literal["head"]


@dataclass(frozen=True, slots=True)
class StartPlan:
    """`kept` replicas run on, each on its node. `replaced` actors end before `missing` replicas start."""

    kept: Mapping[ReplicaId, str]
    head_kept: bool
    replaced: Sequence[Actor]
    missing: Sequence[ReplicaId]

    def dispensable(self) -> dict[ReplicaId, list[ReplicaId]]:
        """The kept replicas of experts that have others, with these: a kept one may fail while another has not."""
        every = [*self.kept, *self.missing]
        return {r: [other for other in every if other.expert == r.expert and other != r] for r in self.kept}

    def nodes(self, alive: Iterable[NodeInfo], needs: Mapping[str, float]) -> dict[ReplicaId, str]:
        """Where the missing replicas start: the first of each expert has its choice before the second ones."""
        return assign(sorted(self.missing, key=lambda r: (r.index, r.expert)), alive, self.kept, needs)


def plan_start(
    running: Mapping[Actor, ActorReport | None], head: ActorSpec, experts: Sequence[ActorSpec], replicas: int
) -> StartPlan:
    """An actor is kept if it reports the spec that it would be started with, else replaced, also if it does not answer
    (None) or its expert does not exist. Kept replicas stay, however many; each expert has at least `replicas`.
    """
    specs = {spec.expert: spec for spec in (head, *experts)}
    wanted = {actor: specs.get(None if actor == "head" else actor.expert) for actor in running}
    good = {actor: report for actor, report in running.items() if report and report.spec == wanted[actor]}
    kept = {actor: report.node_id for actor, report in good.items() if actor != "head"}
    taken = [[r for r in kept if r.expert == expert] for expert in range(len(experts))]
    missing = [new for expert, mine in enumerate(taken) for new in unused(expert, replicas - len(mine), mine)]
    return StartPlan(kept, "head" in good, [actor for actor in running if actor not in good], missing)
