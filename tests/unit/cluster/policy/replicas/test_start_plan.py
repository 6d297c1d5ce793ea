"""What a start keeps of an earlier one, what it replaces, what it starts."""

from dataclasses import replace

from actors.replica import ReplicaId
from actors.specs import ActorReport, ActorSpec
from actors.vitals import NodeInfo
from cluster.policy.replicas.start_plan import Actor, StartPlan, plan_start

HEAD = ActorSpec("folder", "float32", "cpu", 1, digest="d", code="c")
EXPERTS = [replace(HEAD, expert=expert) for expert in range(2)]
A, B, C, D = ReplicaId(0, 0), ReplicaId(0, 1), ReplicaId(1, 0), ReplicaId(1, 3)


def report(spec: ActorSpec, node_id: str = "n0") -> ActorReport:
    return ActorReport(7, node_id, spec, 0)


def start(running: dict[Actor, ActorReport | None], replicas: int = 1) -> StartPlan:
    return plan_start(running, HEAD, EXPERTS, replicas)


def test_with_nothing_there_everything_is_missing() -> None:
    assert start({}, replicas=2) == StartPlan({}, False, [], [A, B, C, ReplicaId(1, 1)])


def test_an_actor_of_an_equal_spec_is_adopted_where_it_runs() -> None:
    found = start({"head": report(replace(HEAD)), A: report(replace(EXPERTS[0]), "n1"), C: report(EXPERTS[1])})
    assert found == StartPlan({A: "n1", C: "n0"}, True, [], [])


def test_an_actor_of_another_checkpoint_or_other_code_is_replaced() -> None:
    found = start({"head": report(replace(HEAD, digest="x")), A: report(replace(EXPERTS[0], code="x"))})
    assert found.replaced == ["head", A] and not found.head_kept and found.kept == {}
    assert found.missing == [A, C], "the successor has the same place"


def test_an_actor_that_holds_another_expert_is_replaced() -> None:
    assert start({A: report(EXPERTS[1])}).replaced == [A]
    assert start({"head": report(EXPERTS[0])}).replaced == ["head"]


def test_an_actor_that_does_not_answer_is_replaced() -> None:
    assert start({"head": None, A: None}).replaced == ["head", A]


def test_an_actor_of_an_expert_that_there_is_not_is_replaced() -> None:
    far = ReplicaId(2, 0)
    assert start({far: report(replace(HEAD, expert=2))}).replaced == [far]


def test_replicas_that_an_earlier_serve_added_are_kept_with_their_indexes() -> None:
    running: dict[Actor, ActorReport | None] = {B: report(EXPERTS[0]), D: report(EXPERTS[1]), A: report(EXPERTS[0])}
    assert set(start(running).kept) == {A, B, D} and start(running).missing == []
    assert start(running, replicas=3).missing == [ReplicaId(0, 2), C, ReplicaId(1, 1)]


def test_a_kept_replica_is_dispensable_while_its_expert_has_another() -> None:
    found = StartPlan({A: "n0", D: "n0"}, True, [], [B])
    assert found.dispensable() == {A: [B], D: []}, "a new one is not dispensable: it was asked for"


def test_the_first_replica_of_each_expert_chooses_its_node_before_the_second_ones() -> None:
    nodes = [NodeInfo(name, "", True, {"GPU": 1.0}) for name in ("n0", "n1")]
    found = start({}, replicas=2).nodes(nodes, {"GPU": 1.0})
    assert found == {A: "n0", C: "n1", B: "", ReplicaId(1, 1): ""}


def test_missing_replicas_are_placed_beside_the_kept_ones() -> None:
    nodes = [NodeInfo(name, "", True) for name in ("n0", "n1")]
    assert start({A: report(EXPERTS[0], "n0")}, replicas=2).nodes(nodes, {})[B] == "n1"
