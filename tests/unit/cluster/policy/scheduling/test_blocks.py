"""The pool of KV pages."""

import random

import pytest

from cluster.policy.scheduling.blocks import BlockPool


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
    pool.give_back(pool.take(1))
    with pytest.raises(AssertionError, match=f"page {page} is not taken"):
        pool.give_back([page])


def test_a_shared_page_is_free_when_the_last_holder_lets_go() -> None:
    pool = BlockPool(3)
    (page,) = pool.take(1)
    pool.share([page])
    assert pool.holders(page) == 2
    pool.give_back([page])
    assert (pool.holders(page), pool.free_count) == (1, 2)
    pool.give_back([page])
    assert (pool.holders(page), pool.free_count) == (0, 3)


def test_a_free_page_is_found_by_its_contents_until_it_is_taken() -> None:
    pool = BlockPool(2)
    (page,) = pool.take(1)
    pool.publish(page, b"key")
    pool.give_back([page])
    assert pool.find(b"key") == page
    pool.share([page])
    assert (pool.holders(page), pool.free_count) == (1, 1), "it was taken back with what it holds"
    pool.give_back([page])
    pool.take(2)
    assert pool.find(b"key") is None, "whoever takes it will write to it"
    pool.check()


def test_pages_that_nobody_can_find_go_first_then_those_freed_longest_ago() -> None:
    pool = BlockPool(4)
    a, b, c, d = pool.take(4)
    for page, key in ((a, b"a"), (b, b"b"), (d, b"d")):
        pool.publish(page, key)
    for page in (b, a, c, d):
        pool.give_back([page])
    assert [pool.take(1)[0] for _ in range(4)] == [c, b, a, d]


def test_the_first_page_with_some_contents_keeps_their_key() -> None:
    pool = BlockPool(2)
    first, second = pool.take(2)
    pool.publish(first, b"same")
    pool.publish(second, b"same")
    pool.publish(first, b"other")
    assert (pool.find(b"same"), pool.find(b"other")) == (first, None)
    pool.give_back([second])
    pool.check()
    assert pool.take(1) == [second]
    assert pool.find(b"same") == first, "the other one's end changes nothing"


def test_after_the_memory_is_lost_nothing_is_found() -> None:
    pool = BlockPool(2)
    (page,) = pool.take(1)
    pool.publish(page, b"key")
    pool.forget_contents()
    assert pool.find(b"key") is None
    pool.publish(page, b"key")
    assert pool.find(b"key") == page
    pool.check()


def test_only_a_held_page_is_published() -> None:
    with pytest.raises(AssertionError, match="page 1 is not taken"):
        BlockPool(2).publish(1, b"key")


def _lose(pool: BlockPool) -> None:
    del pool._free[2]


def _double(pool: BlockPool) -> None:
    pool._holders[2] = 1


def _empty(pool: BlockPool) -> None:
    del pool._free[2]
    pool._holders[2] = 0


def _misname(pool: BlockPool) -> None:
    pool._page_of[b"key"] = 2


@pytest.mark.parametrize(
    ("damage", "said"),
    [(_lose, "lost"), (_double, "both free and held"), (_empty, "held by nobody"), (_misname, "names another page")],
)
def test_check_sees_damage(damage: object, said: str) -> None:
    pool = BlockPool(3)
    pool.publish(pool.take(1)[0], b"key")
    pool.check()
    assert callable(damage)
    damage(pool)
    with pytest.raises(AssertionError, match=said):
        pool.check()
