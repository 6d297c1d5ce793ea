"""The in-process transport."""

import pytest
import torch

from actors.replica import Replica
from actors.transport.local import Applies, LocalTransport
from actors.transport.seam import ExpertCall


class Doubling:
    """Doubles rows and adds the layer."""

    def __init__(self) -> None:
        self.calls = 0

    def apply(self, layer: int, rows_RD: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return rows_RD * 2 + layer


class Broken:
    def apply(self, layer: int, rows_RD: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no weights")


def call(call_id: int, expert: Applies, value: float = 0.0, layer: int = 0) -> ExpertCall:
    return ExpertCall(call_id, layer, Replica(0, 0, "", expert), torch.full((call_id, 3), value))


def test_calls_are_run_by_their_expert_and_answered_once() -> None:
    experts = [Doubling(), Doubling()]
    transport = LocalTransport()
    transport.submit([call(4, experts[1], 1.0, layer=5), call(2, experts[0])])
    transport.submit([call(3, experts[1], 1.0)])
    replies = transport.poll(0, (4, 2, 3))
    assert [reply.call_id for reply in replies] == [4, 2, 3]
    assert [reply.rows_RD.tolist() for reply in replies if reply.rows_RD is not None] == [
        [[7.0] * 3] * 4,
        [[0.0] * 3] * 2,
        [[2.0] * 3] * 3,
    ]
    assert [expert.calls for expert in experts] == [1, 2]
    assert all(reply.service_seconds >= 0 and not reply.error for reply in replies)
    assert transport.poll(0, ()) == []


def test_nothing_sent_is_nothing_to_poll() -> None:
    transport = LocalTransport()
    transport.submit([])
    assert transport.poll(60, ()) == []


def test_error_of_an_expert_in_this_process_is_ours() -> None:
    with pytest.raises(RuntimeError, match="no weights"):
        LocalTransport().submit([call(1, Broken())])
