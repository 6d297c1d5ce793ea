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
    """What `combine` needs of a dispatch under way: its grouping, and which call carries which grouped rows."""

    dispatch: Dispatch
    grouping: Grouping
    waiting: dict[int, tuple[ExpertCall, slice]]
    outputs_RD: torch.Tensor


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
        rows_RD = dispatch.x_TD.index_select(0, grouping.order_R // dispatch.experts_TK.shape[1])
        receipt = Receipt(dispatch, grouping, {}, torch.empty_like(rows_RD))
        begin = 0
        for expert, count in enumerate(grouping.counts):
            if count:
                part = slice(begin, begin + count)
                call = ExpertCall(next(self._ids), dispatch.layer, expert, self._replica_of(expert), rows_RD[part])
                receipt.waiting[call.call_id] = (call, part)
                self._transport.submit(call)
                begin += count
        return receipt

    def combine(self, receipt: Receipt, counts: StepCounts) -> torch.Tensor:
        """Wait for every call of a receipt and add up the answers, [T, D]."""
        deadline = self._clock() + self._grace
        while receipt.waiting:
            failed = [r for r in self._transport.poll(max(0.0, deadline - self._clock())) if not _accept(receipt, r)]
            retry = [r for r in failed if r.call_id in receipt.waiting]
            if receipt.waiting and self._clock() >= deadline:
                self._give_up(receipt, retry)
            if retry:
                self._pause(_RETRY_PAUSE)
            for reply in retry:
                call, _ = receipt.waiting[reply.call_id]
                counts.retries += 1
                self._transport.submit(call)
        return combine(receipt.dispatch, receipt.grouping, receipt.outputs_RD)

    def _give_up(self, receipt: Receipt, failed: list[ExpertReply]) -> None:
        missing = sorted({call.expert for call, _ in receipt.waiting.values()})
        reason = f": {failed[0].error}" if failed else ""
        raise ExpertUnavailable(f"no answer from experts {missing} within {self._grace:g} s{reason}")


def _accept(receipt: Receipt, reply: ExpertReply) -> bool:
    """Take an answer's rows; False for a failure. An answer to an earlier layer's given-up call is dropped."""
    if reply.rows_RD is None:
        return False
    entry = receipt.waiting.pop(reply.call_id, None)
    if entry is not None:
        receipt.outputs_RD[entry[1]] = reply.rows_RD
    return True
