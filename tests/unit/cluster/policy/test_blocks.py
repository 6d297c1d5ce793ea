"""The pool of KV pages."""

import random

import pytest

from cluster.policy.blocks import BlockPool


def test_pages_come_back_in_any_order() -> None:
    rng, pool = random.Random(0), BlockPool(20)
    held: list[int] = []
    for _ in range(500):
        if held and rng.random() < 0.5:
            gone = rng.sample(held, rng.randint(1, len(held)))
            pool.give_back(gone)
            held = [page for page in held if page not in gone]
        else:
            taken = pool.take(rng.randint(0, pool.free_count))
            assert not set(taken) & set(held)
            held += taken
        pool.check()
        assert pool.free_count == 20 - len(held)
    pool.give_back(held)
    assert sorted(pool.take(20)) == list(range(20))


def test_more_pages_than_are_free_are_not_given() -> None:
    pool = BlockPool(3)
    pool.take(2)
    with pytest.raises(AssertionError, match="2 pages wanted, 1 free"):
        pool.take(2)


@pytest.mark.parametrize("page", [0, 7, -1])
def test_a_page_that_is_not_taken_cannot_be_given_back(page: int) -> None:
    pool = BlockPool(3)
    taken = pool.take(1)
    pool.give_back(taken)
    with pytest.raises(AssertionError, match=f"page {page} is not taken"):
        pool.give_back([page])


def test_check_sees_a_page_that_is_lost_doubled_or_both() -> None:
    lost, doubled, both = BlockPool(3), BlockPool(3), BlockPool(3)
    lost._free.pop()
    doubled._free.append(doubled._free[0])
    both._owned.add(both._free[0])
    for pool, said in ((lost, "lost"), (doubled, "free twice"), (both, "both free and owned")):
        with pytest.raises(AssertionError, match=said):
            pool.check()
