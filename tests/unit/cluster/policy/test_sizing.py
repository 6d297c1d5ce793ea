"""Whether a model fits, who sits where, and what bounds a step: by sizes alone."""

from dataclasses import replace

import pytest

from cluster.policy.sizing import EXPERT_BYTES, HEAD_BYTES, ModelSize, Room, size_up

GB = 10**9
MIXTRAL = ModelSize(  # 8x7B in bfloat16
    layers=32,
    experts=8,
    experts_per_token=2,
    context=32768,
    head=round(3.21 * GB),
    expert=round(11.27 * GB),
    kv_token=128 << 10,
    kv_most=1 << 62,
    row=8192,
)


def gpus(*sizes: float) -> list[Room]:
    return [Room(f"gpu {number}", round(size * GB), True, 300e9) for number, size in enumerate(sizes, 1)]


def hosts(*sizes: float, reads: float = 40e9) -> list[Room]:
    return [Room(f"host {number}", round(size * GB), False, reads) for number, size in enumerate(sizes, 1)]


def test_eight_experts_take_four_cards_of_24_gb_and_the_head_a_fifth() -> None:
    sizing = size_up(MIXTRAL, gpus(25.77, 25.77, 25.77, 25.77, 25.77))
    assert not sizing.lacking
    assert [len(t.experts) for t in sizing.rooms] == [0, 2, 2, 2, 2]
    assert sizing.head_room is sizing.rooms[0]
    assert all(t.used <= t.room.usable for t in sizing.rooms)
    assert sizing.kv_tokens == pytest.approx(0.8 * (25.77 * 0.95 - 3.21 - 0.52) * GB / (128 << 10), rel=0.01)


def test_what_does_not_fit_is_named_with_what_it_would_take() -> None:
    sizing = size_up(MIXTRAL, gpus(25.77, 25.77, 25.77, 25.77))
    assert sizing.lacking == (7,)
    assert sizing.shortage() > MIXTRAL.expert
    nowhere = size_up(MIXTRAL, hosts(4))
    assert nowhere.lacking == (None, *range(8))
    assert nowhere.kv_tokens == 0 and nowhere.sent(32) == 0 and nowhere.read_seconds(32) == 0.0


def test_replicas_of_an_expert_sit_apart_where_they_can() -> None:
    sizing = size_up(MIXTRAL, hosts(128, 128, 128), replicas=2)
    assert not sizing.lacking
    assert all(len(set(t.experts)) == len(t.experts) for t in sizing.rooms)
    assert sum(len(t.experts) for t in sizing.rooms) == 16


def test_large_hosts_get_more_experts_small_ones_none() -> None:
    sizing = size_up(MIXTRAL, hosts(96, 32, 8))
    assert not sizing.lacking
    large, middle, small = (len(t.experts) for t in sizing.rooms)
    assert large > middle > small == 0


def test_a_card_takes_the_head_though_a_host_has_more_room() -> None:
    sizing = size_up(MIXTRAL, [*hosts(256), *gpus(25.77)])
    assert sizing.head_room is sizing.rooms[1]


def test_memory_of_an_actor_is_its_process_and_its_weights() -> None:
    one = replace(MIXTRAL, experts=1, experts_per_token=1)
    (host,) = size_up(one, hosts(64)).rooms
    assert host.used == HEAD_BYTES + one.head + EXPERT_BYTES + one.expert


def test_what_is_sent_follows_tokens_layers_and_the_experts_that_are_away() -> None:
    away = size_up(MIXTRAL, gpus(25.77, 25.77, 25.77, 25.77, 25.77))
    assert away.sent(1) == 2 * 2 * 8192 * 32
    assert away.sent(32) == 32 * away.sent(1)
    assert size_up(MIXTRAL, hosts(256)).sent(32) == 0


def test_a_step_reads_the_head_and_the_slowest_room() -> None:
    sizing = size_up(MIXTRAL, gpus(25.77, 25.77, 25.77, 25.77, 25.77))
    full = sizing.read_seconds(10_000)
    assert full == pytest.approx((MIXTRAL.head + 2 * MIXTRAL.expert) / 300e9)
    assert sizing.read_seconds(1) == pytest.approx((MIXTRAL.head + 2 * MIXTRAL.expert / 4) / 300e9)


def test_the_cache_has_no_more_than_it_could_use_and_the_share_that_is_asked_for() -> None:
    assert size_up(replace(MIXTRAL, kv_most=10 * GB), hosts(256)).kv == 10 * GB
    fixed = replace(MIXTRAL, kv_fixed=50 * GB)
    assert size_up(fixed, hosts(256)).kv == 50 * GB
    assert None in size_up(fixed, hosts(48)).lacking, "a cache of that size has no room beside the head"
    whole, half = (size_up(MIXTRAL, hosts(256), kv_share=share).kv for share in (0.5, 0.25))
    assert whole == pytest.approx(2 * half, rel=1e-6)
