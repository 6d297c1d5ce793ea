"""The expert router: an object inside the head that takes a layer's dispatch to the experts and back. Expert calls are
pure functions of (layer, rows): a second answer to one would be equal, and exactly one is used. T: tokens, R: rows, D:
hidden size.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence

import torch

from actors.replica import Replica
from actors.routing.deadlines import Deadlines
from actors.routing.receipt import Part, Receipt, Stray
from actors.routing.replicas import Replicas
from actors.routing.step_counts import StepCounts
from actors.transport.seam import ExpertCall, ExpertReply, ExpertTransport
from actors.usage import UsageCounter
from model.device.host_link import HostLink, NoLink
from model.routing import Dispatch, combine, group
from model.trunk import Forward

_RETRY_PAUSE = 0.05  # seconds until another attempt at an expert whose every replica has failed
_HEDGE_SHARE = 0.02  # hedges per call, in the long run
_MOST_HEDGES = 4.0  # ... and at once


class ExpertUnavailable(Exception):
    """No replica of an expert answered within its grace."""


class ExpertRouter:
    """Runs a trunk's generator against a transport; `link` brings rows from the trunk's device and back.

    A part of an expert's rows goes to one replica. It goes to another as well when the first fails, or passes its
    deadline, or (hedging) is slower than nearly all calls are; that one then is doubted. Where no other replica exists
    a failed part is tried again until `grace` seconds have passed, then ExpertUnavailable is raised.

    Several dispatches may be under way at once, and be combined in any order: a reply finds its part by its call's id.
    Each `combine` looks after the deadlines of its own dispatch only, and raises for no other.
    """

    def __init__(
        self,
        transport: ExpertTransport,
        replicas: Replicas,
        usage: UsageCounter | None = None,
        grace: float = math.inf,
        deadlines: Deadlines | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        link: HostLink | None = None,
    ) -> None:
        self.replicas, self.grace = replicas, grace
        self._transport, self._usage = transport, usage or UsageCounter(len(replicas.table))
        self._deadlines, self._link = deadlines or Deadlines(), link or NoLink()
        self._clock, self._pause = clock, pause
        self._ids = itertools.count()
        self._asked: dict[int, Part] = {}  # by the id of each call under way, of whichever dispatch
        self._strays: dict[int, Stray] = {}
        self._hedges = 1.0  # how many may be sent now

    def run(self, forwards: Sequence[Forward], counts: StepCounts) -> list[torch.Tensor]:
        """Drive trunks to their ends: answer each dispatch that they yield, return what they return. Of several, each
        goes on while experts compute for the others.
        """
        logits: dict[int, torch.Tensor] = {}
        under_way: dict[int, Receipt] = {}

        def go_on(lane: int, total_TD: torch.Tensor | None) -> None:
            try:
                under_way[lane] = self.dispatch(forwards[lane].send(total_TD))  # type: ignore[arg-type]  # None begins
            except StopIteration as end:
                logits[lane] = end.value

        try:
            for lane in range(len(forwards)):
                go_on(lane, None)
            while under_way:
                for lane, receipt in list(under_way.items()):
                    asked = self._clock() if len(forwards) > 1 else receipt.sent_at
                    total_TD = self.combine(receipt, counts)
                    counts.note(lane, receipt, self._clock() - asked)
                    del under_way[lane]
                    go_on(lane, total_TD)
        finally:
            for receipt in under_way.values():
                self.abandon(receipt)
        return [logits[lane] for lane in range(len(forwards))]

    # ---- dispatch ----

    def dispatch(self, dispatch: Dispatch) -> Receipt:
        x_TD, experts_TK = self._link.download(dispatch.x_TD, dispatch.experts_TK)
        receipt = Receipt(dispatch, experts_TK, group(experts_TK, len(self.replicas.table)), self._clock())
        rows_RD = x_TD.index_select(0, receipt.grouping.tokens_R)
        calls = []
        for expert, expert_rows_RD in enumerate(rows_RD.split(receipt.grouping.counts)):
            if len(expert_rows_RD):
                calls += self._first_calls(receipt, expert, expert_rows_RD)
        self._hedges = min(_MOST_HEDGES, self._hedges + _HEDGE_SHARE * len(calls))
        self._submit(calls)
        self._doubt_strays(receipt.sent_at)
        return receipt

    def _first_calls(self, receipt: Receipt, expert: int, rows_RD: torch.Tensor) -> list[ExpertCall]:
        count = len(self.replicas.table[expert])
        parts = self._deadlines.parts(len(rows_RD), count)
        several = self.replicas.spread(expert, parts) if parts > 1 else []
        if len(several) < 2:
            receipt.parts.append(part := Part(expert, rows_RD, resend_at=receipt.sent_at))
            replica = self.replicas.choose(expert, len(rows_RD))
            return [self._attempt(receipt.dispatch.layer, part, replica)] if replica else []
        calls = []
        shares = self.replicas.paces.shares(len(rows_RD), several, self._deadlines.line())
        for replica, part_RD in zip(several, rows_RD.split(shares), strict=True):
            if not len(part_RD):
                continue
            receipt.parts.append(part := Part(expert, part_RD))
            calls.append(self._attempt(receipt.dispatch.layer, part, replica))
        return calls

    def _attempt(self, layer: int, part: Part, replica: Replica) -> ExpertCall:
        call = ExpertCall(next(self._ids), layer, replica, part.rows_RD)
        part.attempts[call.call_id] = replica
        self._asked[call.call_id] = part
        self.replicas.send(replica, part.rows)
        now = self._clock()
        part.resend_at = now + self._deadlines.deadline(part.rows)
        several = len(self.replicas.table[part.expert]) > 1
        part.hedge_at = now + self._deadlines.hedge_after(part.rows) if several else math.inf
        return call

    def _submit(self, calls: list[ExpertCall]) -> None:
        try:
            self._transport.submit(calls)
        except BaseException:  # no memory, or no room for messages: what was sent is not waited for, either
            for call in calls:
                part = self._asked.pop(call.call_id)
                self.replicas.failed(part.attempts.pop(call.call_id), part.rows)
            self._transport.abandon([call.call_id for call in calls])
            raise

    # ---- combine ----

    def combine(self, receipt: Receipt, counts: StepCounts) -> torch.Tensor:
        """Wait for an answer to every part of a receipt and add them up, [T, D]."""
        end, retries = self._clock() + self.grace, counts.retries
        rows_KT = self._link.upload([receipt.grouping.rows_KT])  # while the experts compute
        try:
            while waiting := receipt.open:
                for reply in self._poll(waiting, end):
                    self._accept(reply)
                waiting = receipt.open
                if waiting and self._clock() >= end:
                    self._give_up(waiting)
                self._send_again(receipt.dispatch.layer, waiting, counts)
        finally:
            self.abandon(receipt)
        if counts.retries == retries and receipt.parts:
            self._deadlines.observe(receipt.largest, receipt.seconds)
        outputs_RD = self._link.upload(receipt.answers()) if receipt.parts else receipt.dispatch.x_TD[:0]
        return combine(receipt.dispatch.weights_TK, rows_KT, outputs_RD)

    def abandon(self, receipt: Receipt) -> None:
        """Wait no longer for what is under way of a dispatch."""
        for part in receipt.parts:
            if part.attempts:
                self._leave(part)

    def _poll(self, waiting: list[Part], end: float) -> list[ExpertReply]:
        now = self._clock()
        until = min(end, *(min(part.resend_at, part.hedge_at) for part in waiting))
        call_ids = [call_id for part in waiting for call_id in part.attempts]
        if not call_ids:  # every replica of what is open has failed
            self._pause(max(0.0, min(until, now + _RETRY_PAUSE) - now))
            return self._transport.poll(0.0, ())
        several = any(len(part.attempts) > 1 for part in waiting)
        return self._transport.poll(max(0.0, until - now), call_ids, first=several)

    def _accept(self, reply: ExpertReply) -> None:
        part = self._asked.pop(reply.call_id, None)
        if part is None:
            if stray := self._strays.pop(reply.call_id, None):
                self._note(stray.replica, stray.rows, reply)
            return
        replica = part.attempts.pop(reply.call_id)
        self._note(replica, part.rows, reply)
        if reply.rows_RD is None:
            part.error = reply.error
            if not part.attempts:
                part.resend_at, part.hedge_at = self._clock() + _RETRY_PAUSE, math.inf
            return
        assert reply.rows_RD.shape == part.rows_RD.shape, f"{reply.rows_RD.shape} answers {part.rows_RD.shape}"
        part.answer_RD = reply.rows_RD
        part.answered_at = self._clock()
        if part.attempts:
            self._leave(part)

    def _note(self, replica: Replica, rows: int, reply: ExpertReply) -> None:
        if reply.rows_RD is None:
            self.replicas.failed(replica, rows)
        else:
            self.replicas.answered(replica, rows)
            if len(self.replicas.table[replica.expert]) > 1:
                self.replicas.paces.observe(replica, reply.service_seconds, self._deadlines.expect(rows))
            self._usage.served(replica, rows, reply.service_seconds)

    def _leave(self, part: Part) -> None:
        """Turn the attempts under way of a part into strays."""
        for call_id, replica in part.attempts.items():
            del self._asked[call_id]
            self._strays[call_id] = Stray(replica, part.rows, part.resend_at)
        self._transport.abandon(list(part.attempts))
        part.attempts.clear()

    def _doubt_strays(self, now: float) -> None:
        """Mark replicas as late whose superseded call has passed its deadline."""
        for call_id, stray in self._strays.items():
            if now >= stray.late_at:
                self.replicas.late(stray.replica)
                self._strays[call_id] = stray._replace(late_at=math.inf)

    # ---- again ----

    def _send_again(self, layer: int, waiting: list[Part], counts: StepCounts) -> None:
        """Send what failed, is late or slow to another replica."""
        now, calls = self._clock(), []
        for part in waiting:
            slow = bool(part.attempts) and part.hedge_at <= now < part.resend_at
            if replica := self._hedge(part) if slow else self._retry(part, now):
                calls.append(self._attempt(layer, part, replica))
                self._usage.again(replica.expert, hedged=slow)
                counts.retries += not slow
        if calls:
            self._submit(calls)

    def _hedge(self, part: Part) -> Replica | None:
        part.hedge_at = math.inf
        others = self.replicas.trusted(part.expert, tuple(part.attempts.values()))
        if len(part.attempts) > 1 or not others or self._hedges < 1:
            return None
        self._hedges -= 1
        return min(others, key=self.replicas.rows_of)

    def _retry(self, part: Part, now: float) -> Replica | None:
        if part.attempts:
            if now < part.resend_at:
                return None
            for replica in part.attempts.values():
                self.replicas.late(replica)
            found = self.replicas.trusted(part.expert, tuple(part.attempts.values()))
        else:
            found = self.replicas.trusted(part.expert)
            if not found and now >= part.resend_at:  # all are doubted: ask one of them again, but not at once
                found = list(self.replicas.table[part.expert])
        if not found and now >= part.resend_at:
            part.resend_at = now + _RETRY_PAUSE  # the table may have another by then
        return min(found, key=self.replicas.rows_of, default=None)

    def _give_up(self, waiting: list[Part]) -> None:
        silent = sorted({part.expert for part in waiting})
        reason = next((f": {part.error}" for part in waiting if part.error), "")
        raise ExpertUnavailable(f"no answer from experts {silent} within {self.grace:g} s{reason}")
