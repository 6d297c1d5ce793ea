"""A step, event by event: the head computes, messages leave one after the other, experts compute in lanes, answers come
back one after the other. Which experts a token goes to is drawn at random.
"""

import heapq
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

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
class _Step:
    """Micro-batches of a step that are not through yet."""

    begin: float
    left: int
    end: float = 0.0


@dataclass
class Simulation:
    """Steps of one kind on a layout. `popularity` weighs the experts; all are alike by default."""

    shape: Shape
    layout: Layout
    work: Work
    micro_batches: int = 1
    popularity: Sequence[float] = ()
    seed: int = 0
    _seats: list[tuple[Seat, Lanes]] = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._seats = [(seat, Lanes(seat.machine.lanes)) for seat in self.layout.seats]
        self._heads = [Lanes() for _ in range(self.layout.heads)]
        self._links = [(Lanes(), Lanes()) for _ in range(self.layout.heads)]
        config = self.shape.config
        self._popularity = list(self.popularity) or [1.0] * config.num_local_experts

    def seconds(self, steps: int = 4) -> float:
        """Of a step, mean over heads and all steps but the first."""
        layers, events, order = self.shape.config.num_hidden_layers, list[tuple[float, int, int, int]](), 0
        found, under_way, made = list[float](), dict[int, _Step](), Counter[int]()

        def begin(head: int, at: float) -> None:
            nonlocal order
            under_way[head] = _Step(at, self.micro_batches)
            for _ in range(self.micro_batches):
                heapq.heappush(events, (at, order := order + 1, head, 0))

        for head in range(self.layout.heads):
            begin(head, 0.0)
        while events:
            at, _, head, layer = heapq.heappop(events)
            if layer < layers:
                heapq.heappush(events, (self._layer(head, at), order := order + 1, head, layer + 1))
                continue
            step = under_way[head]
            step.left, step.end = step.left - 1, max(step.end, at)
            if step.left:
                continue
            costs = self.layout.head
            end = self._heads[head].take(step.end, costs.step + self.work.sequences * costs.sequence)
            if made[head]:
                found.append(end - step.begin)
            made[head] += 1
            if made[head] <= steps:
                begin(head, end)
        return sum(found) / len(found)

    def _layer(self, head: int, at: float) -> float:
        """When a micro-batch that begins a layer then is through it."""
        costs, share = self.layout.head, 1 / self.micro_batches
        tokens = round(self.work.tokens * share)
        own = costs.layer + tokens * costs.token + self.work.keys * share * costs.key
        at = self._heads[head].take(at, own)
        out, back = self._links[head]
        answers = []
        for seat, lanes, rows in self._calls(tokens, at):
            nbytes = rows * self.shape.row
            at = self._heads[head].take(at, costs.call / 2 + nbytes * costs.byte)
            there = self._over(out, at, nbytes) if seat.away else at
            operations = 2 * self.shape.expert_numbers * rows
            taken = seat.machine.seconds(self.shape.expert_numbers * self.shape.number, operations)
            answers.append((lanes.take(there, taken), nbytes if seat.away else 0))
        last = at
        for done, nbytes in sorted(answers):
            last = max(last, self._over(back, done, nbytes) if nbytes else done)
        return last + costs.call / 2

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
