"""The InferenceService: messages in, messages out; everything between is elsewhere."""

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import TypeVar

from cluster.engine.answer_size import PIECE_BYTES
from cluster.engine.engine import Engine
from cluster.engine.events import Finish, FinishReason
from cluster.engine.generation import Generation, GenerationRequest
from cluster.engine.served_model import ServedModel
from cluster.engine.text import Piece
from cluster.gateway.auth import Caller
from cluster.gateway.backend import Backend, Serving
from cluster.gateway.errors import Violation, invalid, unknown_model
from cluster.gateway.examination.examiner import Examiner
from cluster.gateway.examination.pool import Examination
from cluster.gateway.rpc.times import duration, now
from cluster.settings.request_options import SAMPLING_RANGES
from model.batch import Alternatives
from model.text.tokenizer import Tokenizer
from protos.eightwinds.v1 import inference_pb2 as pb

T = TypeVar("T")
Examined = pb.GenerateRequest | pb.TokenizeRequest | pb.DetokenizeRequest
_LONG_BYTES = 16 << 10

_REASONS = {FinishReason.STOP: pb.FINISH_REASON_STOP, FinishReason.LENGTH: pb.FINISH_REASON_LENGTH}


class InferenceService:
    """See protos/eightwinds/v1/inference.proto. Handlers take a Caller where gRPC's own have a context."""

    def __init__(self, served: ServedModel, backend: Backend, examiner: Examiner, examination: Examination) -> None:
        """`examination` does the work for a request before it is queued, unless that is next to nothing."""
        self._served, self._backend, self._examiner, self._examination = served, backend, examiner, examination

    async def Generate(self, request: pb.GenerateRequest, caller: Caller) -> pb.GenerateResponse:
        """All outputs at once."""
        serving = self._backend.take()
        generations, engine = serving.generations, serving.engine
        wanted = await self._wanted(request, caller, engine, whole=True)
        response = pb.GenerateResponse(
            request_id=wanted.request_id,
            model=self._served.id,
            create_time=now(),
            seed=wanted.sequence.sampling.seed,
            outputs=[pb.Output(index=i) for i in range(wanted.n)],
        )
        with generations.running(wanted, engine) as generation:
            async for pieces in generation.pieces():
                for index, piece in pieces:
                    output = response.outputs[index]
                    output.text += piece.text
                    _add(output, piece, request.output, self._served.tokenizer)
            response.usage.CopyFrom(_usage(generation))
            response.prompt_tokens.extend(self._prompt_tokens(generation))
            if request.output.trace:
                response.trace.CopyFrom(_trace(generation))
        return response

    async def GenerateStream(
        self, request: pb.GenerateRequest, caller: Caller
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        """Pieces as they come; pieces that gathered meanwhile share a message per output."""
        serving = self._backend.take()
        generations, engine = serving.generations, serving.engine
        wanted = await self._wanted(request, caller, engine)
        opening: pb.GenerateStreamResponse | None = self._opening(wanted)  # for the first message
        with generations.running(wanted, engine) as generation:
            async for pieces in generation.pieces():
                messages = self._messages(pieces, request.output)
                if opening is not None:
                    *ahead, last_ahead = self._prompt_messages(generation, messages[0].index)
                    last_ahead.MergeFrom(messages[0])
                    messages = [*ahead, last_ahead, *messages[1:]]
                    messages[0].MergeFrom(opening)
                    opening = None
                if not generation.open_ids:
                    messages[-1].usage.CopyFrom(_usage(generation))
                    if request.output.trace:
                        messages[-1].trace.CopyFrom(_trace(generation))
                for message in messages:
                    if _says_something(message):
                        yield message

    def _messages(self, pieces: list[tuple[int, Piece]], options: pb.OutputOptions) -> list[pb.GenerateStreamResponse]:
        """One message per output, more where it would become too large."""
        messages: list[pb.GenerateStreamResponse] = []
        open_ones: dict[int, pb.GenerateStreamResponse] = {}
        for index, piece in pieces:
            message = open_ones.get(index)
            if message is None:
                message = open_ones[index] = pb.GenerateStreamResponse(index=index)
                messages.append(message)
            message.text += piece.text
            _add(message, piece, options, self._served.tokenizer)
            if len(message.tokens) % 64 == 63 and message.ByteSize() > PIECE_BYTES:
                del open_ones[index]
        return messages

    def _prompt_messages(self, generation: Generation, index: int) -> list[pb.GenerateStreamResponse]:
        """A first message with the prompt's tokens, if they were asked for; more where it would become too large."""
        messages, size = [pb.GenerateStreamResponse(index=index)], 0
        for info in self._prompt_tokens(generation):
            if size > PIECE_BYTES:
                messages.append(pb.GenerateStreamResponse(index=index))
                size = 0
            messages[-1].prompt_tokens.append(info)
            size += info.ByteSize() + 4
        return messages

    async def Tokenize(self, request: pb.TokenizeRequest, caller: Caller) -> pb.TokenizeResponse:
        """Ids of a prompt."""
        work = partial(Examiner.tokenize, request=request, context_length=self._context)
        return await self._examined(request, caller, work)

    async def Detokenize(self, request: pb.DetokenizeRequest, caller: Caller) -> pb.DetokenizeResponse:
        """Text of ids."""
        return await self._examined(request, caller, partial(Examiner.detokenize, request=request))

    def _check_model(self, name: str) -> None:
        if name not in ("", self._served.id):
            raise unknown_model(name, self._served.id)

    async def ListModels(self, request: pb.ListModelsRequest, caller: Caller) -> pb.ListModelsResponse:
        """The one model."""
        if request.page_size < 0:
            raise invalid([Violation("page_size", "must be at least 0")])
        if request.page_token:
            raise invalid([Violation("page_token", "is none that this server gave out")])
        config, default = self._served.checkpoint.config, self._served.default_sampling
        model = pb.Model(
            id=self._served.id,
            architecture="MixtralForCausalLM",
            vocab_size=config.vocab_size,
            context_length=self._context,
            layer_count=config.num_hidden_layers,
            expert_count=config.num_local_experts,
            experts_per_token=config.num_experts_per_tok,
            eos_token_ids=self._served.eos_ids,
            chat=self._served.chat,
            default_sampling=pb.Sampling(**{name: getattr(default, name) for name, *_ in SAMPLING_RANGES}),
            ready=self._backend.ready,
        )
        return pb.ListModelsResponse(models=[model])

    async def _wanted(
        self, request: pb.GenerateRequest, caller: Caller, engine: Engine, whole: bool = False
    ) -> GenerationRequest:
        work = partial(Examiner.generation, request=request, limits=engine.limits, caller=caller, whole=whole)
        return await self._examined(request, caller, work)

    async def _examined(self, request: Examined, caller: Caller, work: Callable[[Examiner], T]) -> T:
        """The result of `work`, beside the event loop if the request is long or constrained: 4 MB take the tokenizer
        more than a second, as a schema may, in which no other stream would move.
        """
        self._check_model(request.model)
        constrained = isinstance(request, pb.GenerateRequest) and request.HasField("constraint")
        size = request.ByteSize()
        if size < _LONG_BYTES and not constrained:
            return work(self._examiner)
        who = caller.name or getattr(request, "user", "") or caller.tenant
        return await self._examination.run(who, size, work, costly=constrained)

    @property
    def _context(self) -> int:
        """The longest prompt and output together that can be served, as far as that is known."""
        state, model = self._backend.state, self._served.context_length
        return min(model, state.engine.limits.most_tokens) if isinstance(state, Serving) else model

    def _prompt_tokens(self, generation: Generation) -> Iterator[pb.TokenInfo]:
        """The prompt's tokens, if their log-probabilities were asked for; the first one has none."""
        if generation.request.sequence.prompt_logprobs < 0:
            return
        ids, tokenizer = generation.request.sequence.prompt_ids, self._served.tokenizer
        yield pb.TokenInfo(id=ids[0], bytes=_bytes(tokenizer, ids[0]))
        for token, (logprob, top) in zip(ids[1:], generation.progress.prompt_scores, strict=True):
            yield _info(tokenizer, token, logprob, top)

    def _opening(self, wanted: GenerationRequest) -> pb.GenerateStreamResponse:
        return pb.GenerateStreamResponse(
            request_id=wanted.request_id, model=self._served.id, create_time=now(), seed=wanted.sequence.sampling.seed
        )


def _add(
    target: pb.Output | pb.GenerateStreamResponse, piece: Piece, options: pb.OutputOptions, tokenizer: Tokenizer
) -> None:
    """Ids, token infos and finish of a piece."""
    token = piece.token
    if options.token_ids:
        target.token_ids.append(token.token_id)
    if token.logprob is not None:
        target.tokens.append(_info(tokenizer, token.token_id, token.logprob, token.top))
    if piece.finish is not None:
        target.finish.CopyFrom(_finish(piece.finish))


def _info(tokenizer: Tokenizer, token: int, logprob: float, top: Alternatives) -> pb.TokenInfo:
    info = pb.TokenInfo(id=token, logprob=logprob, bytes=_bytes(tokenizer, token))
    for other, its_logprob in top:
        info.top.add(id=other, logprob=its_logprob, bytes=_bytes(tokenizer, other))
    return info


def _bytes(tokenizer: Tokenizer, token: int) -> bytes:
    return tokenizer.token_bytes(token, special_tokens=True) if token < tokenizer.vocab_size else b""


def _finish(finish: Finish) -> pb.Finish:
    message = pb.Finish(reason=_REASONS[finish.reason])
    if finish.stop is not None:
        message.stop = finish.stop
    if finish.stop_token_id is not None:
        message.stop_token_id = finish.stop_token_id
    return message


def _says_something(message: pb.GenerateStreamResponse) -> bool:
    told = message.text or message.token_ids or message.tokens or message.prompt_tokens or message.request_id
    return bool(told or message.HasField("finish") or message.HasField("usage"))


def _usage(generation: Generation) -> pb.Usage:
    return pb.Usage(
        prompt_tokens=len(generation.request.sequence.prompt_ids),
        completion_tokens=generation.progress.completion_tokens,
        cached_prompt_tokens=generation.progress.cached_prompt_tokens,
    )


def _trace(generation: Generation) -> pb.Trace:
    p = generation.progress
    return pb.Trace(
        queue_time=duration(p.queue_seconds),
        time_to_first_token=duration(p.first_token_seconds),
        total_time=duration(p.total_seconds),
        routing=[pb.LayerRouting(layer=i, expert_tokens=row) for i, row in enumerate(p.routing)],
        retries=p.retries,
    )
