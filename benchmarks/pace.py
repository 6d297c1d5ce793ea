"""How long requests wait under different rules for what prefill may add to a step: a simulation, where nothing runs.

    python -m benchmarks.pace

The real scheduler plans each step, and a step takes what it takes with the other benchmarks' `mid`: so long in any
case, so long if every expert has a token, so long a decode, so long a prompt's token. `fixed 1.5 x` lets prefill make
a step at most that much longer. `by heads` is the one in `cluster.policy.scheduling.prefill_budget`.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.report import publish
from cluster.policy.scheduling.limits import Limits
from cluster.policy.scheduling.prefill_budget import PrefillBudget
from cluster.policy.scheduling.scheduler import Scheduler
from cluster.policy.scheduling.sequence import Sequence as Waiting
from cluster.policy.scheduling.sequence import SequenceRequest
from model.batch import SampledToken, SamplingParams, StepPlan, StepResult

_LIMITS = Limits(64, 2048, 1 << 16, 16, prefix_caching=False)
_BASE, _TOUCHED, _DECODE, _PREFILL = 0.015, 0.05, 0.0008, 0.00065  # seconds

Rule = Callable[[PrefillBudget, Scheduler], int | None]

RULES: dict[str, Rule] = {
    "fixed 1.5 x": lambda budget, s: budget.tokens(s.decode_count, 0) if s.decode_count else 512,
    "prompts first": lambda budget, s: None,
    "by heads": lambda budget, s: budget.tokens(s.decode_count, s.newcomer_count),
}


@dataclass(slots=True)
class Arrival:
    """A request that comes at a time, with so many tokens in and out, and when its tokens came."""

    at: float
    prompt: int
    out: int
    times: list[float]


def burst(count: int, prompt: int, out: int, at: float = 0.0) -> list[Arrival]:
    """Requests that come together."""
    return [Arrival(at, prompt, out, []) for _ in range(count)]


def stream(count: int, every: float, prompt: int, out: int) -> list[Arrival]:
    """Requests that come one by one."""
    return [Arrival(i * every, prompt, out, []) for i in range(count)]


LOADS: dict[str, Callable[[], list[Arrival]]] = {
    "32 x (64 + 64) at once": lambda: burst(32, 64, 64),
    "96 x (32 + 48) at once": lambda: burst(96, 32, 48),
    "8 x (1500 + 64) at once": lambda: burst(8, 1500, 64),
    "16 streams, then one of 3000": lambda: burst(16, 32, 256) + burst(1, 3000, 8, at=5.0),
    "(64 + 64), 2.5 a second": lambda: stream(150, 0.4, 64, 64),
    "(64 + 64), more than it bears": lambda: stream(300, 0.15, 64, 64),
}


def seconds(plan: StepPlan) -> float:
    """What a step takes."""
    prefill = sum(chunk.length for chunk in plan.chunks if chunk.length > 1)
    return _cost(sum(chunk.length == 1 for chunk in plan.chunks), prefill)


def _cost(decodes: int, prefill: int) -> float:
    return _BASE + _TOUCHED * (1 - 0.75 ** (decodes + prefill)) + _DECODE * decodes + _PREFILL * prefill


def simulate(arrivals: Sequence[Arrival], rule: Rule) -> None:
    """Note when the tokens of all of them come."""
    scheduler, budget, now = Scheduler(_LIMITS), PrefillBudget(1.5), 0.0
    for decodes, prefill in ((1, 0), (4, 0), (4, 40), (16, 0), (1, 64), (16, 30), (32, 0)) * 4:  # it has run before
        budget._cost.observe(decodes, prefill, _cost(decodes, prefill))
    coming = sorted(enumerate(arrivals), key=lambda pair: pair[1].at)
    while coming or scheduler.has_work:
        if not scheduler.has_work:
            now = max(now, coming[0][1].at)
        while coming and coming[0][1].at <= now:
            index, new = coming.pop(0)
            request = SequenceRequest(tuple(range(new.prompt)), SamplingParams(), new.out, sequence_id=str(index))
            scheduler.add(Waiting(request))
        plan = scheduler.plan(0, "", rule(budget, scheduler))
        assert plan is not None
        now += seconds(plan)
        budget.observe(plan, seconds(plan))
        tokens = tuple(SampledToken(chunk.slot, 5) for chunk in plan.chunks if chunk.sample)
        for token in scheduler.commit(plan, StepResult(plan.step, 0, tokens, ())):
            arrivals[int(token.sequence.id)].times.append(now)


def main() -> None:
    """Run and publish."""
    table = []
    for load, make in LOADS.items():
        for name, rule in RULES.items():
            simulate(arrivals := make(), rule)
            first = [a.times[0] - a.at for a in arrivals]
            gaps = [b - a for x in arrivals for a, b in zip(x.times, x.times[1:], strict=False)]
            total = statistics.fmean(a.times[-1] - a.at for a in arrivals)
            numbers = (max(a.times[-1] for a in arrivals), statistics.median(first), max(first), total)
            quantiles = statistics.quantiles(gaps, n=100)
            table.append([load, name, *(f"{n:.1f}" for n in numbers), f"{quantiles[49]:.2f}", f"{quantiles[98]:.2f}"])
    header = ("load", "rule", "all done", "TTFT p50", "TTFT most", "request, mean", "gap p50", "gap p99")
    publish("pace", "What a rule for prefill does to waiting, seconds", header, table, "Simulated, not measured.")


if __name__ == "__main__":
    main()
