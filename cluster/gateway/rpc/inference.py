"""The InferenceService: messages in, messages out; everything between is elsewhere."""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

from google.protobuf import timestamp

from cluster.engine.generation import Generation
from cluster.engine.text import Piece
from cluster.gateway.auth import Caller
from cluster.gateway.errors import Violation, invalid
from cluster.gateway.examination.examiner import Examiner
from cluster.gateway.intake import Intake
from cluster.gateway.lengths import PIECE_BYTES
from cluster.gateway.rpc.times import duration
from cluster.settings.request_options import SAMPLING_RANGES
from model.batch import Alternatives
from model.chat.calls import CallPart
from model.text.tokenizer import Tokenizer
from protos.eightwinds.v1 import inference_pb2 as pb


class InferenceService:
    """See protos/eightwinds/v1/inference.proto. Handlers take a Caller where gRPC's own have a context."""

    def __init__(self, intake: Intake) -> None:
        self._intake, self._served = intake, intake.served

    async def Generate(self, request: pb.GenerateRequest, caller: Caller) -> pb.GenerateResponse:
        async with self._intake.generation(request, caller, whole=True) as generation:
            about = self._about(generation)
            outputs = [pb.Output(index=i) for i in range(generation.request.n)]
            async for pieces in generation.pieces():
                for index, piece in pieces:
                    self._add(outputs[index], piece, request.output)
            return pb.GenerateResponse(
                **about,
                outputs=outputs,
                prompt_tokens=self._prompt_tokens(generation),
                **_totals(generation, request.output.trace),
            )

    async def GenerateStream(
        self, request: pb.GenerateRequest, caller: Caller
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        """Pieces as they come; pieces that gathered meanwhile share a message per output."""
        async with self._intake.generation(request, caller, whole=False) as generation:
            opening: dict[str, Any] = self._about(generation)  # of the first message
            async for pieces in generation.pieces():
                messages = self._prompt_messages(generation, opening | {"index": pieces[0][0]}) if opening else []
                opening = {}
                self._write(pieces, request.output, messages)
                if not generation.open_ids:
                    messages[-1].MergeFrom(pb.GenerateStreamResponse(**_totals(generation, request.output.trace)))
                for message in messages:
                    if any(field.name != "index" for field, _ in message.ListFields()):
                        yield message

    def _prompt_messages(self, generation: Generation, opening: dict[str, Any]) -> list[pb.GenerateStreamResponse]:
        """A first message with the prompt's tokens, if they were asked for; more where it would become too large."""
        messages, size = [pb.GenerateStreamResponse(**opening)], 0
        for info in self._prompt_tokens(generation):
            if size > PIECE_BYTES:
                messages.append(pb.GenerateStreamResponse(index=opening["index"]))
                size = 0
            messages[-1].prompt_tokens.append(info)
            size += info.ByteSize() + 4
        return messages

    def _write(
        self, pieces: list[tuple[int, Piece]], options: pb.OutputOptions, messages: list[pb.GenerateStreamResponse]
    ) -> None:
        """Add pieces to the last message and to new ones: one per output, more where it would become too large."""
        open_ones = {message.index: message for message in messages[-1:]}
        for index, piece in pieces:
            if index not in open_ones:
                open_ones[index] = pb.GenerateStreamResponse(index=index)
                messages.append(open_ones[index])
            message = open_ones[index]
            self._add(message, piece, options)
            if len(message.tokens) % 64 == 63 and message.ByteSize() > PIECE_BYTES:
                del open_ones[index]

    async def Tokenize(self, request: pb.TokenizeRequest, caller: Caller) -> pb.TokenizeResponse:
        work = partial(Examiner.tokenize, request=request, context_length=self._intake.context)
        return await self._intake.examined([request], caller, work)

    async def Detokenize(self, request: pb.DetokenizeRequest, caller: Caller) -> pb.DetokenizeResponse:
        return await self._intake.examined([request], caller, partial(Examiner.detokenize, request=request))

    async def ListModels(self, request: pb.ListModelsRequest, caller: Caller) -> pb.ListModelsResponse:
        if request.page_size < 0:
            raise invalid([Violation("page_size", "must be at least 0")])
        if request.page_token:
            raise invalid([Violation("page_token", "is none that this server gave out")])
        config, default = self._served.checkpoint.config, self._served.default_sampling
        model = pb.Model(
            id=self._served.id,
            architecture="MixtralForCausalLM",
            vocab_size=config.vocab_size,
            context_length=self._intake.context,
            layer_count=config.num_hidden_layers,
            expert_count=config.num_local_experts,
            experts_per_token=config.num_experts_per_tok,
            eos_token_ids=self._served.eos_ids,
            chat=self._served.chat,
            tools=self._served.call_syntax is not None,
            no_chat_reason=form if isinstance(form := self._served.chat_format, str) else "",
            default_sampling=pb.Sampling(**{name: getattr(default, name) for name, *_ in SAMPLING_RANGES}),
            ready=self._intake.backend.ready,
        )
        return pb.ListModelsResponse(models=[model])

    def _about(self, generation: Generation) -> dict[str, Any]:
        """Fields that an answer carries once."""
        wanted = generation.request
        return {
            "request_id": wanted.request_id,
            "model": self._served.id,
            "create_time": timestamp.from_current_time(),
            "seed": wanted.sequence.sampling.seed,
        }

    def _prompt_tokens(self, generation: Generation) -> Iterator[pb.TokenInfo]:
        """The prompt's tokens, if their log-probabilities were asked for; the first one has none."""
        if generation.request.sequence.prompt_logprobs < 0:
            return
        ids, tokenizer = generation.request.sequence.prompt_ids, self._served.tokenizer
        yield pb.TokenInfo(id=ids[0], bytes=tokenizer.named_bytes(ids[0]))
        for token, (logprob, top) in zip(ids[1:], generation.progress.prompt_scores, strict=True):
            yield _info(tokenizer, token, logprob, top)

    def _add(self, target: pb.Output | pb.GenerateStreamResponse, piece: Piece, options: pb.OutputOptions) -> None:
        target.text += piece.text
        for part in piece.calls:
            _add_call(target, part)
        token, finish = piece.token, piece.finish
        if options.token_ids:
            target.token_ids.append(token.token_id)
        if token.logprob is not None:
            target.tokens.append(_info(self._served.tokenizer, token.token_id, token.logprob, token.top))
        if finish is not None:
            target.finish.reason = pb.FinishReason.Value(f"FINISH_REASON_{finish.reason.name}")
            if finish.stop is not None:
                target.finish.stop = finish.stop
            if finish.stop_token_id is not None:
                target.finish.stop_token_id = finish.stop_token_id


def _add_call(target: pb.Output | pb.GenerateStreamResponse, part: CallPart) -> None:
    """Whole answers have whole calls; streams have their parts, and those of one message are joined."""
    if isinstance(target, pb.GenerateStreamResponse):
        if not target.tool_calls or target.tool_calls[-1].index != part.index:
            target.tool_calls.add(index=part.index)
        more = target.tool_calls[-1]
        more.id, more.name = part.id or more.id, part.name or more.name
        more.arguments += part.arguments
        return
    if part.id:
        target.tool_calls.add(id=part.id, name=part.name)
    target.tool_calls[-1].arguments += part.arguments


def _info(tokenizer: Tokenizer, token: int, logprob: float, top: Alternatives) -> pb.TokenInfo:
    info = pb.TokenInfo(id=token, logprob=logprob, bytes=tokenizer.named_bytes(token))
    for other, its_logprob in top:
        info.top.add(id=other, logprob=its_logprob, bytes=tokenizer.named_bytes(other))
    return info


def _totals(generation: Generation, traced: bool) -> dict[str, Any]:
    """Fields that end an answer."""
    p = generation.progress
    usage = pb.Usage(
        prompt_tokens=len(generation.request.sequence.prompt_ids),
        completion_tokens=p.completion_tokens,
        cached_prompt_tokens=p.cached_prompt_tokens,
    )
    trace = pb.Trace(
        queue_time=duration(p.queue_seconds),
        time_to_first_token=duration(p.first_token_seconds),
        total_time=duration(p.total_seconds),
        routing=[pb.LayerRouting(layer=i, expert_tokens=row) for i, row in enumerate(p.routing)],
        retries=p.retries,
    )
    return {"usage": usage, "trace": trace if traced else None}
