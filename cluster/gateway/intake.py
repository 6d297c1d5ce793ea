"""The way of a request from any door to the engine: examined, queued, and under way."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from cluster.engine.generation import Generation
from cluster.engine.served_model import ServedModel
from cluster.gateway.auth import Caller
from cluster.gateway.backend import Backend
from cluster.gateway.errors import unknown_model
from cluster.gateway.examination.examiner import Examiner
from cluster.gateway.examination.pool import Examination
from cluster.gateway.lengths import context
from protos.eightwinds.v1 import inference_pb2 as pb

T = TypeVar("T")
Examined = pb.GenerateRequest | pb.TokenizeRequest | pb.DetokenizeRequest
_LONG_BYTES = 16 << 10


class Intake:
    def __init__(self, served: ServedModel, backend: Backend, examiner: Examiner, examination: Examination) -> None:
        """`examination` does the work for a request before it is queued, unless that is next to nothing."""
        self.served, self.backend = served, backend
        self._examiner, self._examination = examiner, examination

    @asynccontextmanager
    async def generation(self, request: pb.GenerateRequest, caller: Caller, whole: bool) -> AsyncIterator[Generation]:
        """The request under way; `whole`: the answer is one message. ApiError, QueueFull or EngineStopped if not."""
        serving = self.backend.require()
        limits = serving.engine.limits
        work = partial(Examiner.generation, request=request, limits=limits, caller=caller, whole=whole)
        wanted = await self.examined(request, caller, work)
        with serving.generations.running(wanted, serving.engine) as generation:
            yield generation

    async def examined(self, request: Examined, caller: Caller, work: Callable[[Examiner], T]) -> T:
        """The result of `work`, beside the event loop if the request is long or constrained: 4 MB take the tokenizer
        more than a second, as a schema may, in which no other stream would move.
        """
        if request.model not in ("", self.served.id):
            raise unknown_model(request.model, self.served.id)
        constrained = isinstance(request, pb.GenerateRequest) and _is_constrained(request)
        size = request.ByteSize()
        if size < _LONG_BYTES and not constrained:
            return work(self._examiner)
        who = caller.name or getattr(request, "user", "") or caller.tenant
        return await self._examination.run(who, size, work, costly=constrained)

    @property
    def context(self) -> int:
        """The longest prompt and output together that can be served, as far as that is known."""
        serving = self.backend.serving
        return context(self.served, serving.engine.limits) if serving else self.served.context_length


def _is_constrained(request: pb.GenerateRequest) -> bool:
    """Calls of tools are kept to their schemas."""
    return request.HasField("constraint") or bool(request.prompt.chat.tools)
