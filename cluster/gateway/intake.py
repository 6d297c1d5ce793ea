"""The way of a request from any door to the engine: examined, queued, and under way."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TypeVar

from cluster.engine.generation import Generation, GenerationRequest
from cluster.engine.served_model import ServedModel
from cluster.gateway.auth import Caller
from cluster.gateway.backend import Backend
from cluster.gateway.errors import check_model
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
        with self.running(await self.wanted([request], caller, whole)) as (generation,):
            yield generation

    async def wanted(
        self, requests: Sequence[pb.GenerateRequest], caller: Caller, whole: bool
    ) -> list[GenerationRequest]:
        """The engine's work for the requests of one call, which are examined together; ApiError if one is wrong."""
        limits = self.backend.require().engine.limits
        work = partial(Examiner.generations, requests=requests, limits=limits, caller=caller, whole=whole)
        return await self.examined(requests, caller, work)

    @contextmanager
    def running(self, wanted: Sequence[GenerationRequest]) -> Iterator[list[Generation]]:
        """All of it under way, or QueueFull or EngineStopped and none of it."""
        serving = self.backend.require()
        with serving.generations.all_running(wanted, serving.engine) as generations:
            yield generations

    async def examined(self, requests: Sequence[Examined], caller: Caller, work: Callable[[Examiner], T]) -> T:
        """The result of `work` on the requests of one call, beside the event loop if they are long or constrained: 4 MB
        take the tokenizer more than a second, as a schema may, in which no other stream would move.
        """
        first = requests[0]
        check_model(first.model, self.served.names)
        constrained = isinstance(first, pb.GenerateRequest) and _is_constrained(first)
        size = sum(request.ByteSize() for request in requests)
        who = caller.name or getattr(first, "user", "") or caller.tenant
        return await self.beside(size, who, work, constrained)

    async def beside(self, size: int, who: str, work: Callable[[Examiner], T], costly: bool = False) -> T:
        """The result of `work` on so many bytes, in the turn of a tenant `who`, unless that is next to nothing."""
        if size < _LONG_BYTES and not costly:
            return work(self._examiner)
        return await self._examination.run(who, size, work, costly=costly)

    @property
    def context(self) -> int:
        """The longest prompt and output together that can be served, as far as that is known."""
        serving = self.backend.serving
        return context(self.served, serving.engine.limits) if serving else self.served.context_length


def _is_constrained(request: pb.GenerateRequest) -> bool:
    """Calls of tools are kept to their schemas."""
    return request.HasField("constraint") or bool(request.prompt.chat.tools)
