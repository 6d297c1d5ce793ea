"""The requests that every system gets, and what one did with them."""

import random
from dataclasses import dataclass

_FIRST_ID, _LAST_ID = 300, 2000  # ids that the demo's vocabulary has, too


@dataclass(frozen=True, slots=True)
class Work:
    """`count` requests at once, each of `prompt` random ids, which puts out `tokens` ids greedily."""

    count: int
    prompt: int
    tokens: int

    @classmethod
    def parse(cls, text: str) -> "Work":
        """`32x64+64`; ValueError for anything else."""
        count, _, lengths = text.partition("x")
        prompt, _, tokens = lengths.partition("+")
        return cls(int(count), int(prompt), int(tokens))

    def __str__(self) -> str:
        return f"{self.count} x ({self.prompt} + {self.tokens})"

    def prompts(self, round_: int) -> list[list[int]]:
        """Others in each round, so that no cache of prefixes knows them."""
        source = random.Random(f"{self} {round_}")
        return [[source.randint(_FIRST_ID, _LAST_ID) for _ in range(self.prompt)] for _ in range(self.count)]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds from the first request to the last token, and the median to a first token (nan if it is not told)."""

    seconds: float
    ttft: float
