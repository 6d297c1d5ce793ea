"""What the head is told, and when again."""

from actors.replica import ReplicaId
from cluster.policy.replicas.known_routes import KnownRoutes

A, B, C = ReplicaId(0, 0), ReplicaId(0, 1), ReplicaId(1, 0)


def test_what_is_known_is_not_told_again() -> None:
    table = KnownRoutes({A: "a"})
    assert table.due({A: "a"}, 0.0) is None
    assert table.due({A: "a", B: "b"}, 0.0) == {A: "a", B: "b"}
    assert table.told({A: "a", B: "b"}, frozenset(), 0.0) == [A, B]
    assert table.due({A: "a", B: "b"}, 1.0) is None
    assert table.due({A: "new", B: "b"}, 1.0) == {A: "new", B: "b"}


def test_a_head_that_does_not_answer_is_told_again_and_may_route_to_anybody() -> None:
    table = KnownRoutes({A: "a", B: "b"})
    assert not table.may_reach(C)
    assert table.told({A: "a"}, None, 0.0) == []
    assert table.due({A: "a", B: "b"}, 0.1) == {A: "a", B: "b"}, "even if it is as before"
    assert table.may_reach(B)
    table.told({A: "a"}, frozenset(), 0.2)
    assert table.may_reach(A) and not table.may_reach(B)


def test_a_cold_one_is_left_out_for_a_while_where_there_is_another() -> None:
    table, routed = KnownRoutes({A: "a"}), {A: "a", B: "b"}
    assert table.told(routed, {B}, 0.0) == [A]
    assert table.due(routed, 4.9) is None
    assert table.due(routed | {C: "c"}, 4.9) == {A: "a", C: "c"}, "who comes meanwhile does not wait for it"
    assert table.due(routed, 5.0) == routed
    table.told(routed, {B}, 5.0)
    assert table.due(routed, 14.9) is None and table.due(routed, 15.0) == routed
    table.told(routed, frozenset(), 15.0)
    assert table.due(routed, 15.0) is None


def test_the_only_one_is_tried_again_at_once() -> None:
    table = KnownRoutes({})
    assert table.told({C: "c"}, {C}, 0.0) == []
    assert table.due({C: "c"}, 0.1) == {C: "c"}


def test_one_in_the_place_of_another_begins_anew() -> None:
    table, routed = KnownRoutes({A: "a"}), {A: "a", B: "b"}
    table.told(routed, {B}, 0.0)
    assert table.due({A: "a"}, 0.05) is None, "it has ended"
    assert table.due(routed, 0.1) == routed
