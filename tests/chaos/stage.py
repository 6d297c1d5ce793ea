"""What a scenario is given and what it answers."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.load import percentile
from tests.chaos.streams import Streams, Tally
from tests.chaos.victims import Victims

HEADER = ("what", "times", "requests", "failed", "different", "p99 gap ms", "p99 around ms", "longest gap s", "notes")


@dataclass(frozen=True, slots=True)
class Stage:
    """A server under load: its processes, its streams and a source of chance. `exact` says whether attention that is
    computed again in another shape is promised to give the same tokens: in fp32 it is, in bf16 its rate is reported.
    """

    victims: Victims
    streams: Streams
    rng: random.Random
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """What came of a scenario. `windows` are the spans in which something happened, on the monotonic clock; unless
    `exact`, tokens may differ and are counted only.
    """

    what: str
    times: int
    quiet: Tally
    tally: Tally
    windows: list[tuple[float, float]]
    notes: str = ""
    exact: bool = True

    @property
    def good(self) -> bool:
        """No request failed, and no token differed that must not."""
        return not self.tally.failed and self.tally.done > 0 and not (self.exact and self.tally.different)

    def cells(self) -> list[str]:
        """For the table."""
        before, around = percentile(self.quiet.gaps(), 99), self.tally.gaps(self.windows)
        numbers = [self.times, self.tally.done, len(self.tally.failed), self.tally.different]
        worst = max(around, default=0.0)
        times = (
            [f"{1000 * before:.0f}", f"{1000 * percentile(around, 99):.0f}", f"{worst:.2f}"] if around else ["", "", ""]
        )
        return [self.what, *map(str, numbers), *times, self.notes]


Scenario = Callable[[Stage, int, Tally], Row]  # the stage, how often, and what the streams met while nothing happened
