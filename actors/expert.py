"""An expert: one process that holds one expert's matrices of every layer and applies them to rows it is sent."""

import os
import time
import uuid
from collections.abc import Callable
from dataclasses import replace

import torch

from actors.loading import Loading, Weights, open_checkpoint
from actors.specs import ActorReport, ActorSpec
from actors.transport.rows import HEADER_BYTES, Message, RowsHeader, decode_header, encode_rows
from model.batch import LoadProgress
from model.checkpoint.weights import torch_dtype
from model.config import MixtralConfig
from model.device.host_link import HostLink, NoLink, host_link
from model.experts.dense import ExpertWeights
from model.experts.loading import load_expert
from model.linear import keep_one_order
from model.wire import allow_read_only_buffers, tensor_bytes, tensor_from


class Expert:
    """Loading starts with construction and goes on in the background."""

    def __init__(self, spec: ActorSpec, weights: Weights | None = None) -> None:
        """The weights are those of the spec's folder unless they are given. Raises ValueError if the checkpoint is not
        what it should be.
        """
        assert spec.expert is not None
        allow_read_only_buffers()
        self.spec, self.expert, self.incarnation = spec, spec.expert, uuid.uuid4().hex
        self._source = weights or Weights(open_checkpoint(spec))
        self._checkpoint = self._source.checkpoint
        self._names = self._checkpoint.expert_names(self.expert)
        self._weights: ExpertWeights | None = None
        self._link: HostLink = NoLink()
        nbytes = self._source.to_bring(self._names) + self._checkpoint.nbytes(self._names)
        self._loading = Loading(nbytes, self._load)

    def _load(self, progress: Callable[[int], None]) -> None:
        self._source.bring(self._names, progress)
        keep_one_order(torch.device(self.spec.device))
        self._link = host_link(self.spec.device)
        form, dtype = self.spec.quantization, torch_dtype(self.spec.dtype)
        self._weights = load_expert(self._checkpoint, self.expert, form, dtype, self.spec.device, progress)

    def progress(self) -> LoadProgress:
        return self._loading.progress()

    @property
    def config(self) -> MixtralConfig:
        return self._checkpoint.config

    def forward(self, message: Message) -> Message:
        """`answer` for a message (actors/transport/rows.py)."""
        rows = memoryview(message)[HEADER_BYTES:]  # type: ignore[arg-type]  # numpy arrays are buffers
        header, rows = self.answer(decode_header(message), rows)
        return encode_rows(header, rows)

    def answer(self, header: RowsHeader, rows: memoryview) -> tuple[RowsHeader, memoryview]:
        """Apply one layer to rows and answer with as many.

        A pure function of its argument, so a call may be sent again or to another replica. Waits for the weights.
        """
        rows_RD = tensor_from(rows, 0, header.rows, header.columns, header.dtype_code)
        weights = self._wait_for_weights()
        started = time.perf_counter_ns()
        (answer_RD,) = self._link.download(weights.forward(header.layer, self._link.upload([rows_RD])))
        took = time.perf_counter_ns() - started
        return replace(header, service_ns=took), tensor_bytes(answer_RD)

    def apply(self, layer: int, rows_RD: torch.Tensor) -> torch.Tensor:
        return self._wait_for_weights().forward(layer, rows_RD.to(self.spec.device))

    def _wait_for_weights(self) -> ExpertWeights:
        if self._weights is None:
            progress = self._loading.wait()
            if self._weights is None:
                raise RuntimeError(f"expert {self.expert} has no weights: {progress.error}")
        return self._weights

    def report(self) -> ActorReport:
        held = self._weights.nbytes() if self._weights else 0
        tensors = {name: self._checkpoint.tensors[name].nbytes for name in self._names} if held else {}
        return ActorReport(os.getpid(), "", self.spec, held, tensors)
