"""The expert router: an object inside the head that takes a layer's dispatch to the experts and back.

Group rows by expert, one call per active expert with all its rows, combine in fixed order. T: tokens, R: rows,
D: hidden size.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from actors.messages import ExpertUnavailable
from actors.transport import ExpertCall, ExpertReply, ExpertTransport
from model.routing import Dispatch, Grouping, combine, group
from model.trunk import Forward

_RETRY_PAUSE = 0.05  # seconds between attempts at an expert that fails at once


@dataclass(slots=True)
class Receipt:
    """What `combine` needs of a dispatch under way: its grouping, and its calls in expert order, by id, with the
    rows that answered them. Answers side by side are the grouped rows' outputs.
    """

    dispatch: Dispatch
    grouping: Grouping
    calls: dict[int, ExpertCall] = field(default_factory=dict)
    answers: dict[int, torch.Tensor] = field(default_factory=dict)

    @property
    def missing(self) -> list[ExpertCall]:
        """Calls without an answer."""
        return [call for call_id, call in self.calls.items() if call_id not in self.answers]

    def accept(self, reply: ExpertReply) -> None:
        """Take an answer's rows. A second one, or one to an earlier layer's given-up call, changes nothing."""
        if reply.rows_RD is not None and reply.call_id in self.calls:
            asked_RD = self.calls[reply.call_id].rows_RD
            assert reply.rows_RD.shape == asked_RD.shape, f"{reply.rows_RD.shape} answers {asked_RD.shape}"
            self.answers.setdefault(reply.call_id, reply.rows_RD)

    def outputs(self) -> torch.Tensor:
        """Outputs of all grouped rows, [R, D]."""
        return torch.cat([self.answers[call_id] for call_id in self.calls] or [self.dispatch.x_TD[:0]])


@dataclass(slots=True)
class StepCounts:
    """What one step did: `expert_tokens[layer][expert]` rows, retried calls, seconds spent waiting for experts."""

    expert_tokens: list[tuple[int, ...]] = field(default_factory=list)
    chosen: list[torch.Tensor] = field(default_factory=list)
    retries: int = 0
    dispatch_seconds: float = 0.0


class ExpertRouter:
    """Runs a trunk's generator against a transport.

    A failed call is sent again until it is answered or `grace` seconds have passed, then ExpertUnavailable is
    raised. Exactly one answer per call is used: expert calls are pure, so a second one would be equal.
    """

    def __init__(
        self,
        transport: ExpertTransport,
        expert_count: int,
        grace: float = 60.0,
        replicas: Callable[[int], int] = lambda expert: 0,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport, self._expert_count, self._grace = transport, expert_count, grace
        self._replica_of, self._clock, self._pause = replicas, clock, pause
        self._ids = itertools.count()

    def run(self, forward: Forward, counts: StepCounts) -> torch.Tensor:
        """Drive a trunk to its end: answer each dispatch it yields, return what it returns."""
        try:
            dispatch = next(forward)
            while True:
                started = self._clock()
                receipt = self.dispatch(dispatch)
                counts.expert_tokens.append(receipt.grouping.counts)
                counts.chosen.append(dispatch.experts_TK)
                total_TD = self.combine(receipt, counts)
                counts.dispatch_seconds += self._clock() - started
                dispatch = forward.send(total_TD)
        except StopIteration as end:
            logits: torch.Tensor = end.value
            return logits

    def dispatch(self, dispatch: Dispatch) -> Receipt:
        """Send one call per active expert."""
        grouping = group(dispatch.experts_TK, self._expert_count)
        rows_RD = dispatch.x_TD.index_select(0, grouping.tokens_R)
        receipt = Receipt(dispatch, grouping)
        for expert, part_RD in enumerate(rows_RD.split(grouping.counts)):
            if len(part_RD):
                call = ExpertCall(next(self._ids), dispatch.layer, expert, self._replica_of(expert), part_RD)
                receipt.calls[call.call_id] = call
        self._transport.submit(list(receipt.calls.values()))
        return receipt

    def combine(self, receipt: Receipt, counts: StepCounts) -> torch.Tensor:
        """Wait for every call of a receipt and add up the answers, [T, D]."""
        deadline = self._clock() + self._grace
        while len(receipt.answers) < len(receipt.calls):
            failed = []
            for reply in self._transport.poll(max(0.0, deadline - self._clock())):
                receipt.accept(reply)
                if reply.rows_RD is None and reply.call_id in receipt.calls:
                    failed.append(reply)
            if receipt.missing and self._clock() >= deadline:
                self._give_up(receipt, failed)
            failed = [reply for reply in failed if reply.call_id not in receipt.answers]
            if failed:
                self._pause(_RETRY_PAUSE)
                counts.retries += len(failed)
                self._transport.submit([receipt.calls[reply.call_id] for reply in failed])
        return combine(receipt.dispatch, receipt.grouping, receipt.outputs())

    def _give_up(self, receipt: Receipt, failed: list[ExpertReply]) -> None:
        silent = sorted(call.expert for call in receipt.missing)
        reason = f": {failed[0].error}" if failed else ""
        raise ExpertUnavailable(f"no answer from experts {silent} within {self._grace:g} s{reason}")
