"""What came of a happening."""

from dataclasses import dataclass

HEADER = (
    "what",
    "times",
    "requests",
    "failed",
    "different",
    "longest gap s",
    "serve ended",
    "left behind",
    "good",
    "notes",
)


@dataclass(frozen=True, slots=True)
class Row:
    """`ended` are the exit codes of `serve` with the seconds until they came; `left` what it left behind and should not
    have; `bad` what is not as docs/operations.md promises, empty if nothing.
    """

    what: str
    times: int
    requests: int = 0
    failed: int = 0
    different: int = 0
    longest_gap: float = 0.0
    ended: str = ""
    left: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    notes: str = ""

    @property
    def good(self) -> bool:
        """Whether all is as promised."""
        return not (self.bad or self.left)

    def cells(self) -> list[str]:
        """For the table."""
        numbers = [self.times, self.requests, self.failed, self.different]
        verdict = "yes" if self.good else "NO: " + "; ".join((*self.bad, *self.left))[:300]
        gap = f"{self.longest_gap:.1f}" if self.longest_gap else ""
        return [self.what, *map(str, numbers), gap, self.ended, str(len(self.left)), verdict, self.notes]
