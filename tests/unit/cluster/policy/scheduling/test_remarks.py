"""What an operator reads of an expert: the note of a scaling, else why a replica is away."""

from cluster.policy.replicas.membership import Membership


def test_why_a_replica_is_away_is_shown_while_it_is_and_a_note_comes_first() -> None:
    m = Membership([1, 1])
    for expert in range(2):
        m.begin((expert, 0), "n", 0.0)
        m.alive((expert, 0), "a", 1, "n", True, 0.0)
        m.joined((expert, 0), 0.0)
        m.ended((expert, 0), 1.0)
        m.away((expert, 0), "its machine's memory was full")
    m.notes[1] = "replica 1 was not started"
    assert m.remarks() == {0: "replica 0 is away: its machine's memory was full", 1: "replica 1 was not started"}
    m.alive((0, 0), "b", 2, "n", True, 2.0)
    assert 0 not in m.remarks()
