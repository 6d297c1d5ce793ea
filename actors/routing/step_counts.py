"""The work of a step, gathered layer by layer."""

from dataclasses import dataclass, field

import torch

from actors.routing.receipt import Receipt
from model.device.host_link import joined


@dataclass(slots=True)
class StepCounts:
    """Of one step: `lanes[lane][layer]` the rows of each expert and the experts of each token [T, K] (on the host), for
    each trunk that ran; retried calls, seconds spent waiting for experts.
    """

    lanes: dict[int, list[tuple[tuple[int, ...], torch.Tensor]]] = field(default_factory=dict)
    retries: int = 0
    dispatch_seconds: float = 0.0

    def note(self, lane: int, receipt: Receipt, seconds: float) -> None:
        """A layer of a lane has its answers, after so long a wait."""
        self.lanes.setdefault(lane, []).append((receipt.grouping.counts, receipt.experts_TK))
        self.dispatch_seconds += seconds

    @property
    def expert_tokens(self) -> tuple[tuple[int, ...], ...]:
        """Rows [layer][expert] of all lanes."""
        layers = zip(*([rows for rows, _ in lane] for lane in self.lanes.values()), strict=True)
        return tuple(tuple(map(sum, zip(*rows, strict=True))) for rows in layers)

    @property
    def chosen(self) -> list[torch.Tensor]:
        """Per layer the experts of each token, those of the first lane first."""
        return [joined(chosen) for chosen in zip(*([c for _, c in lane] for lane in self.lanes.values()), strict=True)]
