"""A step, event by event: the head computes, messages leave one after the other, experts compute in lanes, answers come
back one after the other. Which experts a token goes to is drawn at random.
"""

import functools
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.simulate.cluster import Layout, Link, Seat, Shape


class Lanes:
    """Something that so many may use at once, the first who comes first."""

    def __init__(self, count: int = 1) -> None:
        self._free = [0.0] * count

    def take(self, at: float, seconds: float) -> float:
        """Use it from then on, or as soon as it is free; returns when that ends."""
        end = max(at, self._free[0]) + seconds
        heapq.heapreplace(self._free, end)
        return end

    def waits(self, at: float) -> float:
        return max(0.0, self._free[0] - at)


@dataclass(frozen=True, slots=True)
class Work:
    """What a head has in each step: `tokens` of `sequences`, whose attention reads `keys` in all."""

    tokens: int
    sequences: int
    keys: int = 0


@dataclass
class _Batch:
    """A micro-batch of a head's step; of the layer that it is in, `open` answers have not come."""

    head: int
    layer: int = 0
    open: int = 0


@dataclass
class Simulation:
    """Steps of one kind on a layout. `popularity` weighs the experts; all are alike by default."""

    shape: Shape
    layout: Layout
    work: Work
    micro_batches: int = 1
    popularity: Sequence[float] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._seats = [(seat, Lanes(seat.machine.lanes)) for seat in self.layout.seats]
        heads = range(self.layout.heads)
        self._heads = [Lanes() for _ in heads]
        self._out, self._back = [Lanes() for _ in heads], [Lanes() for _ in heads]
        config = self.shape.config
        self._popularity = list(self.popularity) or [1.0] * config.num_local_experts
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._steps: list[list[float]] = [[] for _ in heads]  # when each began
        self._left = [0 for _ in heads]  # micro-batches of the step that are not through

    def seconds(self, steps: int = 4) -> float:
        """Of a step, mean over heads and all steps but the first."""
        for head in range(self.layout.heads):
            self._begin(head, 0.0)
        while min(map(len, self._steps)) < steps + 2:
            at, _, action = heapq.heappop(self._events)
            action(at)
        return sum(begun[steps + 1] - begun[1] for begun in self._steps) / steps / len(self._steps)

    def _at(self, time: float, action: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), action))

    def _begin(self, head: int, at: float) -> None:
        self._steps[head].append(at)
        self._left[head] = self.micro_batches
        for _ in range(self.micro_batches):
            batch = _Batch(head)
            self._at(at, functools.partial(self._layer, batch))

    def _layer(self, batch: _Batch, at: float) -> None:
        """The head's part of a layer, and its calls; behind the last layer the end of the step."""
        if batch.layer == self.shape.config.num_hidden_layers:
            self._end(batch.head, at)
            return
        costs, head, share = self.layout.head, self._heads[batch.head], 1 / self.micro_batches
        tokens = round(self.work.tokens * share)
        at = head.take(at, costs.layer + tokens * costs.token + self.work.keys * share * costs.key)
        calls = self._calls(tokens, at)
        batch.open = len(calls)
        for seat, lanes, rows in calls:
            nbytes = rows * self.shape.row
            at = head.take(at, (costs.call + nbytes * costs.byte) / 2)
            there = self._over(self._out[batch.head], at, nbytes) if seat.away else at
            compute = functools.partial(self._compute, batch, seat, lanes, rows)
            self._at(there, compute)

    def _compute(self, batch: _Batch, seat: Seat, lanes: Lanes, rows: int, at: float) -> None:
        operations = 2 * self.shape.expert_numbers * rows
        taken = seat.machine.seconds(self.shape.expert_numbers * self.shape.number, operations)
        nbytes = rows * self.shape.row
        self._at(lanes.take(at, taken), functools.partial(self._send_back, batch, seat.away, nbytes))

    def _send_back(self, batch: _Batch, away: bool, nbytes: int, at: float) -> None:
        here = self._over(self._back[batch.head], at, nbytes) if away else at
        self._at(here, functools.partial(self._take_in, batch, nbytes))

    def _take_in(self, batch: _Batch, nbytes: int, at: float) -> None:
        costs = self.layout.head
        end = self._heads[batch.head].take(at, (costs.call + nbytes * costs.byte) / 2)
        batch.open -= 1
        if not batch.open:
            batch.layer += 1
            self._at(end, functools.partial(self._layer, batch))

    def _end(self, head: int, at: float) -> None:
        self._left[head] -= 1
        if not self._left[head]:
            costs = self.layout.head
            self._begin(head, self._heads[head].take(at, costs.step + self.work.sequences * costs.sequence))

    def _over(self, way: Lanes, at: float, nbytes: float) -> float:
        link: Link = self.layout.link
        return way.take(at, nbytes / link.rate) + link.delay

    def _calls(self, tokens: int, at: float) -> list[tuple[Seat, Lanes, int]]:
        """As the router sends them: one for each expert, to the replica that is free first, or, where its rows cost
        more than a call by itself, split among replicas (actors/routing/deadlines.py).
        """
        config, calls = self.shape.config, list[tuple[Seat, Lanes, int]]()
        rows = Counter[int]()
        for _ in range(tokens):
            rows.update(self._drawn(config.num_experts_per_tok))
        for expert, count in sorted(rows.items()):
            mine = sorted((s for s in self._seats if expert in s[0].experts), key=lambda s: s[1].waits(at))
            parts = self._parts(mine[0][0], count, len(mine))
            share, more = divmod(count, parts)
            calls += [(seat, lanes, share + (i < more)) for i, (seat, lanes) in enumerate(mine[:parts])]
        return calls

    def _parts(self, seat: Seat, rows: int, replicas: int) -> int:
        fixed = seat.machine.seconds(self.shape.expert_numbers * self.shape.number, 0)
        each = seat.machine.seconds(0, 2 * self.shape.expert_numbers) - seat.machine.call
        return max(1, min(replicas, rows, int(rows * each / fixed)))

    def _drawn(self, count: int) -> list[int]:
        """Different experts of one token."""
        weights, found = list(self._popularity), list[int]()
        for _ in range(count):
            expert = self._random.choices(range(len(weights)), weights)[0]
            weights[expert] = 0.0
            found.append(expert)
        return found


def step_seconds(shape: Shape, layout: Layout, work: Work, steps: int = 4, popularity: Sequence[float] = ()) -> float:
    """As one micro-batch or as two, whichever is faster, as the head chooses."""
    ways = (1, 2) if work.sequences > 1 else (1,)
    return min(Simulation(shape, layout, work, count, popularity).seconds(steps) for count in ways)
