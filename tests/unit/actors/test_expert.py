"""An expert: its rows against the plain formula, its messages, and what it holds."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from actors import expert as module
from actors.expert import Expert
from actors.transport.rows import HEADER_BYTES, RowsHeader, decode_header, encode_rows
from model.wire import DTYPE_CODES, tensor_bytes, tensor_from
from tests.checkpoints import load_experts, random_weights, spec, tiny, write

pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("checkpoint"), tiny(), shards=2)


def message(rows: torch.Tensor, layer: int) -> Any:
    return encode_rows(RowsHeader(DTYPE_CODES[rows.dtype], layer, *rows.shape), tensor_bytes(rows))


def answer(reply: Any) -> torch.Tensor:
    h = decode_header(reply)
    return tensor_from(reply, HEADER_BYTES, h.rows, h.columns, h.dtype_code)


def test_rows_go_through_the_matrices_of_their_expert_and_layer(folder: Path) -> None:
    weights, rows = random_weights(tiny()), torch.randn(6, 32)
    for expert in load_experts(folder):
        for layer in range(2):
            w1, w2, w3 = (
                weights[f"model.layers.{layer}.block_sparse_moe.experts.{expert.expert}.{w}.weight"].double()
                for w in ("w1", "w2", "w3")
            )
            x = rows.double()
            exact = (torch.nn.functional.silu(x @ w1.T) * (x @ w3.T)) @ w2.T
            torch.testing.assert_close(expert.apply(layer, rows).double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [0, 1, 2, 40])
def test_message_is_answered_by_as_many_rows_and_the_time_taken(dtype: str, rows: int, folder: Path) -> None:
    expert, x = Expert(spec(folder, 3, dtype)), torch.randn(rows, 32).to(DTYPES[dtype])
    reply = expert.forward(message(x, layer=1))
    header = decode_header(reply)
    assert (header.dtype_code, header.layer, header.rows, header.columns) == (DTYPE_CODES[DTYPES[dtype]], 1, rows, 32)
    assert header.service_ns > 0
    assert torch.equal(answer(reply), expert.apply(1, x))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_row_has_the_same_bits_in_any_call(dtype: str, folder: Path) -> None:
    """What makes retries, splits and replicas harmless."""
    expert, x = Expert(spec(folder, 0, dtype)), torch.randn(50, 32).to(DTYPES[dtype])
    together = answer(expert.forward(message(x, 0)))
    assert torch.equal(answer(expert.forward(message(x, 0))), together)
    for begin, end in ((0, 1), (0, 2), (1, 26), (26, 50), (49, 50)):
        assert torch.equal(answer(expert.forward(message(x[begin:end], 0))), together[begin:end])


@pytest.mark.parametrize("damage", ["version", "length", "dtype"])
def test_damaged_message_is_refused(damage: str, folder: Path) -> None:
    expert, sent = Expert(spec(folder, 0)), bytearray(bytes(message(torch.zeros(2, 32), 0)))
    match damage:
        case "version":
            sent[3] += 1
        case "length":
            del sent[-1]
        case "dtype":
            sent[4] = 9
    with pytest.raises(ValueError):
        expert.forward(bytes(sent))


def test_call_waits_for_the_weights(folder: Path) -> None:
    rows = torch.ones(1, 32)
    assert torch.equal(Expert(spec(folder, 2)).apply(0, rows), Expert(spec(folder, 2)).apply(0, rows))


def test_report_names_its_own_tensors_and_their_bytes(folder: Path) -> None:
    weights = random_weights(tiny())
    for expert in load_experts(folder):
        expert.apply(0, torch.zeros(1, 32))
        report = expert.report()
        own = {n: w.nbytes for n, w in weights.items() if f".block_sparse_moe.experts.{expert.expert}." in n}
        assert report.tensors == own and len(own) == 6
        assert report.weight_bytes == sum(own.values())
        assert (report.pid, report.spec.expert) == (os.getpid(), expert.expert)
        assert expert.progress().ready and expert.progress().loaded_bytes == expert.progress().total_bytes


def test_weights_that_cannot_be_loaded_are_an_error_in_progress_and_calls(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(module, "load_expert", fail)
    expert = Expert(spec(folder, 0))
    with pytest.raises(RuntimeError, match="expert 0 has no weights: OSError: the disk is gone"):
        expert.apply(0, torch.zeros(1, 32))
    assert expert.progress().error == "OSError: the disk is gone" and not expert.progress().ready
    assert (expert.report().weight_bytes, expert.report().tensors) == (0, {})


def test_damaged_checkpoint_is_refused_at_construction(tmp_path: Path) -> None:
    folder = write(tmp_path, tiny())
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="truncated"):
        Expert(dataclasses.replace(spec(folder), expert=0))
