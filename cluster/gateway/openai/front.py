"""The OpenAI-compatible endpoints. Tokens, scopes and bounds on a request are those of the gRPC port."""

import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from cluster.engine.generation import Generation
from cluster.gateway.auth import Caller
from cluster.gateway.errors import Violation, check_model, cut, invalid
from cluster.gateway.intake import Intake
from cluster.gateway.openai.answers import Answer, scores_of
from cluster.gateway.openai.dialects.dialect import CHAT, COMPLETIONS, Dialect, Teller
from cluster.gateway.openai.dialects.messages import MESSAGES
from cluster.gateway.openai.dialects.responses import RESPONSES
from cluster.gateway.openai.guard import REQUEST_ID, Endpoint, Guard
from cluster.gateway.openai.logprobs import Words
from cluster.gateway.openai.rendering import beside, rendered
from cluster.gateway.openai.requests import Wanted, wanted_of
from cluster.gateway.openai.streams import Events, Pieces, kept_alive, merged, unless_gone
from cluster.gateway.openai.tokens import counted, detokenized, tokenized, tokenizer_info
from cluster.gateway.places import Places
from cluster.observe.refusals import Refusals
from cluster.observe.said_once import SaidOnce
from cluster.settings.sections import LimitsSection
from cluster.settings.tokens import TokenFile

log = logging.getLogger("eightwinds.openai")

_DIALECTS = {"/v1/chat/completions": CHAT, "/v1/completions": COMPLETIONS}
_DIALECTS |= {"/v1/messages": MESSAGES, "/v1/responses": RESPONSES}
_COUNT = "/v1/messages/count_tokens"
_MOST_SCORES = 500_000  # log-probabilities in one answer: some 60 MB
_PROBES = 16  # one connection of so many is kept for probes, and for telling others to come later
_SILENCE_SECONDS = 12.0  # of a stream, after which a comment shows that it lives
T = TypeVar("T")


class Front:
    def __init__(
        self,
        intake: Intake,
        refusals: Refusals,
        tokens: TokenFile | None,
        message_bytes: int,
        limits: LimitsSection,
    ) -> None:
        """Without `tokens` everybody may ask; a body may have `message_bytes`."""
        self._intake, self._most_fields = intake, limits.message_fields
        self._guard, self._words = Guard(refusals, tokens, message_bytes, limits), Words(intake.served.tokenizer)
        connections = max(1, limits.http_connections - limits.http_connections // _PROBES)
        self._places = Places(min(limits.calls, connections), "TOO_MANY_CALLS", "requests")
        self._said = SaidOnce(log)
        self._created, self._release = int(time.time()), version("eightwinds")

    def routes(self) -> list[Route]:
        """Each answers with a slash at its end, too: a redirect would lose a POST's body for some clients."""
        posts: dict[str, Endpoint] = {}
        gets: dict[str, Endpoint] = {"/v1/models": self._models, "/v1/models/{model:path}": self._model}
        for prefix in ("", "/v1"):
            posts |= {f"{prefix}/tokenize": self._tokenize, f"{prefix}/detokenize": self._detokenize}
            gets |= {f"{prefix}/tokenizer_info": self._tokenizer_info, f"{prefix}/version": self._version}
        gets["/load"] = self._load
        found = [Route("/", _here, methods=["GET"])]
        found += [Route(path, self._health) for path in ("/health", "/health/", "/ping", "/ping/")]
        guarded = [(path, ["POST"], self._guard(endpoint)) for path, endpoint in posts.items()]
        guarded += [(path, ["GET"], self._guard(endpoint)) for path, endpoint in gets.items()]
        for path, dialect in _DIALECTS.items():
            guarded.append((path, ["POST"], self._guard(self._generating(dialect), dialect.failure)))
        guarded.append((_COUNT, ["POST"], self._guard(self._count, MESSAGES.failure)))
        for path, methods, endpoint in guarded:
            found += [Route(p, endpoint, methods=methods) for p in (path, f"{path}/")]
        return found

    # ---- generation ----

    def _generating(self, dialect: Dialect) -> Endpoint:
        async def generate(request: Request) -> Response:
            async with contextlib.AsyncExitStack() as stack:
                stack.enter_context(self._places)
                wanted = await self._read(request, partial(wanted_of, read=dialect.read, request_id=request.state.id))
                if wanted.unknown:
                    detail = cut(repr(wanted.unknown), 300)
                    self._said.warn(time.monotonic(), "bodies have fields that are ignored here", detail=detail)
                generations = await unless_gone(request, self._start(wanted, request.state.caller, stack))
                if generations is None:
                    return Response()
                kind = "chatcmpl" if wanted.chat else "cmpl"
                about = {"id": f"{kind}-{request.state.id}", "created": int(time.time())}
                about["model"] = wanted.model or self._intake.served.id
                answer, teller = Answer(wanted, generations, self._words, about), dialect.teller(wanted, about)
                if wanted.stream:
                    told = self._events(answer, teller, merged(generations), request)
                    events = kept_alive(told, _SILENCE_SECONDS)
                    return Events(events, stack.pop_all(), {REQUEST_ID: request.state.id})
                whole = await unless_gone(request, _whole(answer, teller, merged(generations), len(generations)))
                return _json(whole or "", {"x-eightwinds-retries": str(answer.retries)})

        return generate

    async def _read(self, request: Request, work: Callable[..., T]) -> T:
        """The result of `work` on the body's bytes, `raw`, with at most so many fields."""
        raw = await self._guard.body(request)
        work = partial(work, raw=raw, most=self._most_fields)
        return await self._intake.beside(len(raw), request.state.caller.tenant, work)

    async def _start(self, wanted: Wanted, caller: Caller, stack: contextlib.AsyncExitStack) -> list[Generation]:
        """The generations of all prompts, queued together. An answer in one object must not grow without bound."""
        work = await self._intake.wanted(wanted.requests, caller, whole=False)
        if not wanted.stream and (scores := sum(map(scores_of, work))) > _MOST_SCORES:
            text = (
                f"up to {scores} log-probabilities do not fit into one answer, {_MOST_SCORES} do: lower it, or stream"
            )
            raise invalid([Violation("top_logprobs" if wanted.chat else "logprobs", text)])
        return stack.enter_context(self._intake.running(work))

    async def _events(
        self, answer: Answer, teller: Teller, pieces: AsyncGenerator[tuple[int, Pieces], None], request: Request
    ) -> AsyncGenerator[str, None]:
        try:
            if text := teller.begin(answer.usage()):
                yield text
            async with contextlib.aclosing(pieces):
                async for prompt, some in pieces:
                    if text := await beside(
                        answer.parts(prompt, some), partial(_events_of, answer, teller, prompt, some)
                    ):
                        yield text
            if (last := answer.last_chunk()) and (text := teller.chunk(last)):
                yield text
        except Exception as error:  # the status has been sent: the stream itself has to tell
            yield teller.failed(self._guard.told(error, request))
        if text := teller.end():
            yield text

    # ---- what is served ----

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._described(name) for name in self._intake.served.names]})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["model"].rstrip("/")
        check_model(name, self._intake.served.names)
        return JSONResponse(self._described(name))

    def _described(self, name: str) -> dict[str, Any]:
        about = {"id": name, "object": "model", "created": self._created, "owned_by": "eightwinds"}
        return about | {"root": self._intake.served.id, "max_model_len": self._intake.context}

    async def _health(self, request: Request) -> Response:
        return PlainTextResponse("", 200 if self._intake.backend.ready else 503)

    async def _version(self, request: Request) -> Response:
        return JSONResponse({"version": self._release})

    async def _load(self, request: Request) -> Response:
        return JSONResponse({"server_load": self._intake.backend.require(new_work=False).generations.outputs})

    # ---- tokens ----

    async def _tokenize(self, request: Request) -> Response:
        work = partial(tokenized, names=self._intake.served.names, context=self._intake.context)
        with self._places:
            return _json(await self._read(request, work))

    async def _count(self, request: Request) -> Response:
        work = partial(counted, names=self._intake.served.names, context=self._intake.context)
        with self._places:
            return _json(await self._read(request, work))

    async def _detokenize(self, request: Request) -> Response:
        work = partial(detokenized, names=self._intake.served.names)
        with self._places:
            return _json(await self._read(request, work))

    async def _tokenizer_info(self, request: Request) -> Response:
        return JSONResponse(tokenizer_info(self._intake.served))


async def _here(request: Request) -> Response:
    return PlainTextResponse("eightwinds\n")


async def _whole(answer: Answer, teller: Teller, pieces: AsyncGenerator[tuple[int, Pieces], None], prompts: int) -> str:
    come: list[Pieces] = [[] for _ in range(prompts)]
    async with contextlib.aclosing(pieces):
        async for prompt, some in pieces:
            come[prompt] += some
    parts = sum(answer.parts(prompt, some) for prompt, some in enumerate(come))
    return await beside(parts, lambda: rendered(teller.whole(answer.whole(come))))


def _events_of(answer: Answer, teller: Teller, prompt: int, pieces: Pieces) -> str:
    """Nothing if the tokens have no text yet."""
    return "".join(map(teller.chunk, answer.chunks(prompt, pieces)))


def _json(text: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(text, headers=headers, media_type="application/json")


async def unknown_path(request: Request, error: Exception) -> Response:
    """For Starlette: a path or a method that there is not, told as OpenAI does."""
    assert isinstance(error, HTTPException)
    kind = "not_found_error" if error.status_code == 404 else "invalid_request_error"
    text = f"{request.method} {request.url.path}: {error.detail}"
    told = {"error": {"message": text, "type": kind, "param": None, "code": None}}
    return JSONResponse(told, error.status_code, error.headers)
