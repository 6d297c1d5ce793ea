"""Which pages a sequence needs, holds and may give back."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.policy.scheduling.sequence import Sequence, SequenceRequest, added
from model.batch import SampledToken, SamplingParams


def sequence(length: int, prompt_length: int | None = None) -> Sequence:
    """It has put out what lies beyond its prompt: the numbers from `prompt_length` on."""
    prompt = range(length if prompt_length is None else prompt_length)
    s = Sequence(SequenceRequest(tuple(prompt), SamplingParams(min_tokens=2), 4, frozenset({99}), routing=True))
    s.token_ids += range(len(prompt), length)
    return s


def test_lengths_follow_the_tokens() -> None:
    s = sequence(7, prompt_length=5)
    s.computed = 6
    assert (s.output_length, s.pending) == (2, 1)


@pytest.mark.parametrize(
    ("computed", "pages", "tokens", "expected"),
    [(0, 0, 1, 1), (0, 0, 4, 1), (0, 0, 5, 2), (4, 1, 1, 1), (3, 1, 1, 0), (3, 1, 2, 1), (8, 2, 9, 3), (0, 0, 0, 0)],
)
def test_pages_needed_for_further_tokens(computed: int, pages: int, tokens: int, expected: int) -> None:
    s = sequence(20)
    s.computed, s.pages = computed, list(range(pages))
    assert s.pages_needed(tokens, page_size=4) == expected


def test_outdated_as_in_its_example() -> None:
    """Page size 4, window 6, 14 computed: the query at 14 sees keys 9 to 14, so pages 0 and 1 (keys 0 to 7) go."""
    s = sequence(20)
    s.computed, s.pages = 14, [30, 31, 32, 33]
    assert s.outdated(6, 4) == [30, 31]
    assert s.held_pages == [32, 33]
    assert s.outdated(6, 4) == []  # once only
    s.computed = 17  # now keys from 12 on
    assert s.outdated(6, 4) == [32]


def test_without_a_window_nothing_is_outdated() -> None:
    s = sequence(20)
    s.computed, s.pages = 20, [1, 2, 3, 4, 5]
    assert s.outdated(None, 4) == []
    assert s.held_pages == [1, 2, 3, 4, 5]


@given(
    page_size=st.integers(1, 9),
    window=st.integers(1, 30),
    chunks=st.lists(st.integers(1, 20), min_size=1, max_size=30),
)
@example(page_size=4, window=6, chunks=[14])
@example(page_size=1, window=1, chunks=[1, 1, 1])
def test_no_page_that_a_later_query_sees_is_outdated_and_few_are_held(
    page_size: int, window: int, chunks: list[int]
) -> None:
    s = sequence(sum(chunks) + 1)
    for chunk in chunks:
        s.pages += range(len(s.pages), len(s.pages) + s.pages_needed(chunk, page_size))
        # Key j is seen from query i while i - window < j <= i; the chunk's first query sees farthest back.
        seen = range(max(0, s.computed - window + 1), s.computed + chunk)
        assert {key // page_size for key in seen} <= set(s.held_pages)
        assert len(s.held_pages) <= -(-(window + chunk) // page_size) + 1
        s.computed += chunk
        s.outdated(window, page_size)
        kept = max(0, s.computed - window + 1) // page_size  # and nothing is kept for longer than it is seen
        assert s.dropped == min(kept, len(s.pages))


def test_forgetting_the_cache_returns_the_pages_and_keeps_the_tokens() -> None:
    s = sequence(9, prompt_length=7)
    s.slot, s.computed, s.pages, s.dropped, s.planned = 3, 8, [5, 6, 7], 1, 2
    assert s.forget_cache() == [7, 6]
    assert (s.slot, s.computed, s.pages, s.dropped, s.planned) == (-1, 0, [], 0, 0)
    assert (s.token_ids, s.output_length, s.pending) == (list(range(9)), 2, 9)


def test_admission_carries_all_tokens_and_how_many_are_prompt() -> None:
    s = sequence(9, prompt_length=7)
    s.slot = 3
    new = s.admission()
    assert (new.slot, new.token_ids, new.prompt_length, new.routing) == (3, tuple(range(9)), 7, True)


def test_routing_adds_up_layer_by_layer() -> None:
    assert added((), ((1, 2), (3, 4))) == ((1, 2), (3, 4))
    assert added(((1, 2), (3, 4)), ((10, 20), (30, 40))) == ((11, 22), (33, 44))


@pytest.mark.parametrize(
    ("put_out", "token_id", "last"),
    [
        (0, 5, (False, False)),
        (0, 99, (False, False)),  # a stop id, before min_tokens
        (1, 99, (True, False)),
        (2, 99, (True, False)),
        (3, 5, (False, True)),
        (3, 99, (True, False)),  # a stop id ends it rather than max_tokens
    ],
)
def test_a_stop_id_or_max_tokens_makes_a_token_the_last(put_out: int, token_id: int, last: tuple[bool, bool]) -> None:
    s = sequence(5 + put_out, prompt_length=5)
    s.losses = 3
    s.routing = added((), ((1, 2),))
    sampled = s.append(SampledToken(0, token_id))
    assert (sampled.stopped, sampled.exhausted) == last
    assert s.token_ids[-1] == token_id
    assert (sampled.routing, s.routing, s.losses) == (((1, 2),), (), 0), "both count from token to token"
