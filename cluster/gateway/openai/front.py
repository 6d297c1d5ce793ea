"""The OpenAI-compatible endpoints. Tokens, scopes and bounds on a request are those of the gRPC port."""

import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from cluster.engine.generation import Generation
from cluster.gateway.auth import Caller, admit
from cluster.gateway.errors import ApiError, ErrorKind, Violation, exhausted, invalid, to_api_error
from cluster.gateway.examination.pool import SMALL_BYTES
from cluster.gateway.intake import Intake
from cluster.gateway.openai.answers import Answer, scores_of
from cluster.gateway.openai.body import parsed
from cluster.gateway.openai.failures import body_of, response_of
from cluster.gateway.openai.logprobs import Words
from cluster.gateway.openai.requests import Wanted, chat_wanted, completion_wanted
from cluster.gateway.openai.streams import DONE, Events, Pieces, event, kept_alive, merged, unless_gone
from cluster.gateway.openai.tokens import detokenized, tokenized, tokenizer_info
from cluster.gateway.places import Places
from cluster.gateway.validation import good_request_id
from cluster.observe.refusals import Refusals
from cluster.settings.config import LimitsSection
from cluster.settings.tokens import Scope, TokenFile

_MOST_SCORES = 500_000  # log-probabilities in one answer: some 60 MB
_SILENCE_SECONDS = 12.0  # of a stream, after which a comment shows that it lives
_REQUEST_ID = "x-request-id"
Endpoint = Callable[[Request], Awaitable[Response]]
Read = Callable[[Mapping[str, Any], str], Wanted]


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
        self._intake, self._refusals, self._tokens = intake, refusals, tokens
        self._message_bytes, self._limits, self._words = message_bytes, limits, Words(intake.served.tokenizer)
        self._places = Places(limits.calls, "TOO_MANY_CALLS", "requests")
        self._long_bodies = Places(limits.uploads, "TOO_MANY_UPLOADS", "long bodies")
        self._created, self._release = int(time.time()), version("eightwinds")

    def routes(self) -> list[Route]:
        """Each answers with a slash at its end, too: a redirect would lose a POST's body for some clients."""
        posts: dict[str, Endpoint] = {
            "/v1/chat/completions": self._generating(chat_wanted),
            "/v1/completions": self._generating(completion_wanted),
        }
        gets: dict[str, Endpoint] = {"/v1/models": self._models, "/v1/models/{model:path}": self._model}
        for prefix in ("", "/v1"):
            posts |= {f"{prefix}/tokenize": self._tokenize, f"{prefix}/detokenize": self._detokenize}
            gets |= {f"{prefix}/tokenizer_info": self._tokenizer_info, f"{prefix}/version": self._version}
        found = [Route("/", _here, methods=["GET"])]
        found += [Route(path, self._health) for path in ("/health", "/health/", "/ping", "/ping/")]
        for methods, endpoints in ((["POST"], posts), (["GET"], gets)):
            for path, endpoint in endpoints.items():
                found += [Route(p, self._guarded(endpoint), methods=methods) for p in (path, f"{path}/")]
        return found

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        """Its failures become OpenAI's errors; an answer bears the request's id."""

        async def guarded(request: Request) -> Response:
            given = request.headers.get(_REQUEST_ID, "")
            request.state.id = given if good_request_id(given) else secrets.token_hex(16)
            try:
                request.state.caller = self._admit(request)
                response = await endpoint(request)
            except ClientDisconnect:  # before its body had come whole
                return Response()
            except Exception as error:
                return self._failed(error, request)
            response.headers.setdefault(_REQUEST_ID, request.state.id)
            return response

        return guarded

    def _failed(self, error: Exception, request: Request) -> Response:
        api_error = to_api_error(error, request.state.id)
        self._refusals.note(api_error.reason, _peer(request))
        return response_of(api_error, request.state.id)

    def _admit(self, request: Request) -> Caller:
        if self._tokens is None:
            return Caller(peer=_peer(request))
        holder = admit(request.headers.getlist("authorization"), Scope.INFERENCE, self._tokens.find)
        return Caller(holder.name, holder.highest_priority, _peer(request))

    async def _body(self, request: Request) -> Mapping[str, Any]:
        raw = bytearray()
        with contextlib.ExitStack() as place:
            async for part in request.stream():
                if len(raw) <= SMALL_BYTES < len(raw) + len(part):
                    place.enter_context(self._long_bodies)
                raw += part
                if len(raw) > self._message_bytes:
                    raise exhausted("MESSAGE_TOO_LARGE", f"the body has more than {self._message_bytes} bytes")
            return parsed(bytes(raw), self._limits.message_fields)

    # ---- generation ----

    def _generating(self, read: Read) -> Endpoint:
        async def generate(request: Request) -> Response:
            async with contextlib.AsyncExitStack() as stack:
                stack.enter_context(self._places)
                wanted = read(await self._body(request), request.state.id)
                generations = await unless_gone(request, self._start(wanted, request.state.caller, stack))
                if generations is None:
                    return Response()
                kind = "chatcmpl" if wanted.chat else "cmpl"
                about = {"id": f"{kind}-{request.state.id}", "created": int(time.time())}
                about["model"] = wanted.model or self._intake.served.id
                answer = Answer(wanted, generations, self._words, about)
                if wanted.stream:
                    events = kept_alive(self._events(answer, merged(generations), request), _SILENCE_SECONDS)
                    return Events(events, stack.pop_all(), {_REQUEST_ID: request.state.id})
                whole = await unless_gone(request, _whole(answer, merged(generations), len(generations)))
                return JSONResponse(whole, headers={"x-eightwinds-retries": str(answer.retries)})

        return generate

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
        self, answer: Answer, pieces: AsyncGenerator[tuple[int, Pieces], None], request: Request
    ) -> AsyncGenerator[str, None]:
        try:
            async with contextlib.aclosing(pieces):
                async for prompt, some in pieces:
                    if chunks := answer.chunks(prompt, some):  # tokens may have no text yet
                        yield "".join(map(event, chunks))
            if last := answer.last_chunk():
                yield event(last)
        except Exception as error:  # the status has been sent: the stream itself has to tell
            api_error = to_api_error(error, request.state.id)
            self._refusals.note(api_error.reason, _peer(request))
            yield event(body_of(api_error))
        yield DONE

    # ---- what is served ----

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def _model(self, request: Request) -> Response:
        if (name := request.path_params["model"].rstrip("/")) != self._intake.served.id:
            text = f"model {name[:100]!r} is not served here; use {self._intake.served.id!r}"
            raise ApiError(ErrorKind.NOT_FOUND, "MODEL_NOT_FOUND", text, model=name)
        return JSONResponse(self._described())

    def _described(self) -> dict[str, Any]:
        about = {"id": self._intake.served.id, "object": "model", "created": self._created, "owned_by": "eightwinds"}
        return about | {"root": self._intake.served.id, "max_model_len": self._intake.context}

    async def _health(self, request: Request) -> Response:
        return PlainTextResponse("", 200 if self._intake.backend.ready else 503)

    async def _version(self, request: Request) -> Response:
        return JSONResponse({"version": self._release})

    # ---- tokens ----

    async def _tokenize(self, request: Request) -> Response:
        return JSONResponse(await tokenized(self._intake, await self._body(request), request.state.caller))

    async def _detokenize(self, request: Request) -> Response:
        return JSONResponse(await detokenized(self._intake, await self._body(request), request.state.caller))

    async def _tokenizer_info(self, request: Request) -> Response:
        return JSONResponse(tokenizer_info(self._intake.served))


async def _here(request: Request) -> Response:
    return PlainTextResponse("eightwinds\n")


async def _whole(answer: Answer, pieces: AsyncGenerator[tuple[int, Pieces], None], prompts: int) -> dict[str, Any]:
    come: list[Pieces] = [[] for _ in range(prompts)]
    async with contextlib.aclosing(pieces):
        async for prompt, some in pieces:
            come[prompt] += some
    return answer.whole(come)


async def unknown_path(request: Request, error: Exception) -> Response:
    """For Starlette: a path or a method that there is not, told as OpenAI does."""
    assert isinstance(error, HTTPException)
    kind = "not_found_error" if error.status_code == 404 else "invalid_request_error"
    text = f"{request.method} {request.url.path}: {error.detail}"
    told = {"error": {"message": text, "type": kind, "param": None, "code": None}}
    return JSONResponse(told, error.status_code, error.headers)


def _peer(request: Request) -> str:
    return f"{request.client.host}:{request.client.port}" if request.client else ""
