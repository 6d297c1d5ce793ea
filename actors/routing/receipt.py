"""A dispatch under way: parts of each expert's rows, each part with its attempts. R: rows, D: hidden size."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from actors.replica import Replica
from model.routing import Dispatch, Grouping


@dataclass(slots=True)
class Part:
    """Consecutive grouped rows for one replica. The first answer of any attempt counts. Times: the router's clock."""

    expert: int
    rows_RD: torch.Tensor
    attempts: dict[int, Replica] = field(default_factory=dict)  # under way, by call id
    answer_RD: torch.Tensor | None = None
    answered_at: float = 0.0
    resend_at: float = math.inf
    hedge_at: float = math.inf
    error: str = ""  # why the last attempt failed

    @property
    def rows(self) -> int:
        return len(self.rows_RD)


class Stray(NamedTuple):
    """A call whose answer is not needed any more: the replica still works on it, and may be late with it."""

    replica: Replica
    rows: int
    late_at: float


@dataclass(slots=True)
class Receipt:
    """A dispatch under way. `experts_TK` and `grouping` are on the host; `parts` are in the grouped rows' order."""

    dispatch: Dispatch
    experts_TK: torch.Tensor
    grouping: Grouping
    sent_at: float
    parts: list[Part] = field(default_factory=list)

    @property
    def open(self) -> list[Part]:
        return [part for part in self.parts if part.answer_RD is None]

    @property
    def largest(self) -> int:
        return max(part.rows for part in self.parts)

    @property
    def seconds(self) -> float:
        """From sending until the last part was answered."""
        return max(part.answered_at for part in self.parts) - self.sent_at

    def answers(self) -> list[torch.Tensor]:
        """Outputs of the grouped rows, part by part; side by side they are [R, D]."""
        answers = [part.answer_RD for part in self.parts if part.answer_RD is not None]
        assert len(answers) == len(self.parts), "a part has no answer yet"
        return answers
