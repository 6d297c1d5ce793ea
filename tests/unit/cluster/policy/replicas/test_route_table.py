"""What the head is told, and when again."""

from cluster.policy.replicas.route_table import Publication

A, B, C = (0, 0), (0, 1), (1, 0)


def test_what_is_known_is_not_told_again() -> None:
    publication = Publication({A: "a"})
    assert publication.due({A: "a"}, 0.0) is None
    assert publication.due({A: "a", B: "b"}, 0.0) == {A: "a", B: "b"}
    assert publication.told({A: "a", B: "b"}, frozenset(), 0.0) == [A, B]
    assert publication.due({A: "a", B: "b"}, 1.0) is None
    assert publication.due({A: "new", B: "b"}, 1.0) == {A: "new", B: "b"}


def test_a_head_that_does_not_answer_is_told_again_and_may_route_to_anybody() -> None:
    publication = Publication({A: "a", B: "b"})
    assert not publication.may_reach(C)
    assert publication.told({A: "a"}, None, 0.0) == []
    assert publication.due({A: "a", B: "b"}, 0.1) == {A: "a", B: "b"}, "even if it is as before"
    assert publication.may_reach(B)
    publication.told({A: "a"}, frozenset(), 0.2)
    assert publication.may_reach(A) and not publication.may_reach(B)


def test_a_cold_one_is_left_out_for_a_while_where_there_is_another() -> None:
    publication, routed = Publication({A: "a"}), {A: "a", B: "b"}
    assert publication.told(routed, {B}, 0.0) == [A]
    assert publication.due(routed, 4.9) is None
    assert publication.due(routed | {C: "c"}, 4.9) == {A: "a", C: "c"}, "who comes meanwhile does not wait for it"
    assert publication.due(routed, 5.0) == routed
    publication.told(routed, {B}, 5.0)
    assert publication.due(routed, 14.9) is None and publication.due(routed, 15.0) == routed
    publication.told(routed, frozenset(), 15.0)
    assert publication.due(routed, 15.0) is None


def test_the_only_one_is_tried_again_at_once() -> None:
    publication = Publication({})
    assert publication.told({C: "c"}, {C}, 0.0) == []
    assert publication.due({C: "c"}, 0.1) == {C: "c"}


def test_one_in_the_place_of_another_begins_anew() -> None:
    publication, routed = Publication({A: "a"}), {A: "a", B: "b"}
    publication.told(routed, {B}, 0.0)
    assert publication.due({A: "a"}, 0.05) is None, "it has ended"
    assert publication.due(routed, 0.1) == routed
