"""Who may call what, and that nothing of a refused call is looked at."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cluster.client.client import Client
from cluster.client.messages import text_request
from cluster.engine.served_model import ServedModel
from cluster.settings.request_options import Options
from cluster.settings.sections import LimitsSection
from cluster.settings.tokens import Scope, TokenFile, append, new_token
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.engines import engine_bounds
from tests.fakes import PATIENCE, FakeHead
from tests.serving import Failure, Serving, failure

GENERATE = "/eightwinds.v1.InferenceService/Generate"
STREAM = "/eightwinds.v1.InferenceService/GenerateStream"
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
REQUEST = text_request("My favourite", Options(max_tokens=2))
REQUEST.stopping.ignore_eos = True
RUBBISH = b"\xff" * 40
CALLERS = 30


def of_ids(*ids: int) -> pb.GenerateRequest:
    prompt = pb.Prompt(token_ids=pb.TokenIds(ids=ids))
    return pb.GenerateRequest(prompt=prompt, stopping=pb.Stopping(max_tokens=1))


class Guarded:
    """A server that asks for tokens, and one token of each kind."""

    def __init__(self, served: ServedModel, folder: Path) -> None:
        self.file = folder / "tokens"
        self.tokens = {}
        for name, scopes in (("alice", [Scope.INFERENCE]), ("bob", [Scope.INFERENCE]), ("ops", [Scope.CLUSTER])):
            self.tokens[name], entry = new_token(name, scopes)
            append(self.file, entry)
        self.head = FakeHead()
        bounds = engine_bounds(max_queued=2 * CALLERS)  # however slow the engine is, none of them is refused
        limits = LimitsSection(
            uploads=4 * CALLERS
        )  # a tenant has a quarter, so no message has to make room for another
        self.server = Serving(served, tokens=TokenFile(self.file), limits=limits).ready(self.head, bounds)
        self.channel: Any = self.server.channel

    def unary(self, metadata: list[tuple[str, str]], message: bytes = RUBBISH) -> Failure:
        return failure(lambda: self.channel.unary_unary(GENERATE)(message, metadata=metadata, timeout=PATIENCE))

    def stream(self, metadata: list[tuple[str, str]], message: bytes = RUBBISH) -> Failure:
        return failure(lambda: list(self.channel.unary_stream(STREAM)(message, metadata=metadata, timeout=PATIENCE)))

    def bearer(self, name: str) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.tokens[name]}")]


@pytest.fixture(scope="module")
def guarded(demo: ServedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    guarded = Guarded(demo, tmp_path_factory.mktemp("guarded"))
    yield guarded
    guarded.server.close()


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ([], "TOKEN_MISSING"),
        ([("authorization", "")], "TOKEN_MISSING"),
        ([("authorization", "Bearer ")], "TOKEN_MISSING"),
        ([("authorization", "Basic YTpi")], "TOKEN_MISSING"),
        ([("authorization", "Bearer a"), ("authorization", "Bearer b")], "TOKEN_MISSING"),
        ([("authorization", "Bearer ew_wrong")], "TOKEN_UNKNOWN"),
        ([("authorization", "Bearer " + "x" * 2000)], "TOKEN_UNKNOWN"),
    ],
)
def test_without_a_known_token_a_message_is_not_even_read(
    metadata: list[tuple[str, str]], reason: str, guarded: Guarded
) -> None:
    for told in (guarded.unary(metadata), guarded.stream(metadata)):
        assert (told.code, told.reason) == (StatusCode.UNAUTHENTICATED, reason)
        assert told.trailing["x-request-id"]
        assert "ew_wrong" not in told.text


def test_with_a_token_the_message_counts(guarded: Guarded) -> None:
    for told in (guarded.unary(guarded.bearer("alice")), guarded.stream(guarded.bearer("alice"))):
        assert (told.code, told.reason) == (StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")
    scheme_in_small_letters = [("authorization", f"bearer {guarded.tokens['alice']}")]
    assert guarded.unary(scheme_in_small_letters).reason == "MALFORMED_MESSAGE"


def test_a_token_without_the_scope_is_denied(guarded: Guarded) -> None:
    for told in (guarded.unary(guarded.bearer("ops")), guarded.stream(guarded.bearer("ops"))):
        assert (told.code, told.reason) == (StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
        assert told.metadata == {"scope": "inference"}


def test_health_is_open_and_reflection_takes_any_token(guarded: Guarded) -> None:
    checked = health_pb2_grpc.HealthStub(guarded.channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert checked.status == health_pb2.HealthCheckResponse.SERVING
    reflect = reflection_pb2_grpc.ServerReflectionStub(guarded.channel).ServerReflectionInfo
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    told = failure(lambda: list(reflect(iter([question]), timeout=PATIENCE)))
    assert (told.code, told.reason) == (StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")
    (answer,) = reflect(iter([question]), metadata=guarded.bearer("ops"), timeout=PATIENCE)
    assert "eightwinds.v1.InferenceService" in [s.name for s in answer.list_services_response.service]


def test_a_method_that_does_not_exist_is_unimplemented(guarded: Guarded) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        guarded.channel.unary_unary("/eightwinds.v1.InferenceService/None")(b"", timeout=PATIENCE)
    assert caught.value.code() is StatusCode.UNIMPLEMENTED


def test_the_client_sends_its_token_with_every_call(guarded: Guarded) -> None:
    with Client(guarded.server.address, guarded.tokens["alice"]) as client:
        assert client.generate(REQUEST).usage.completion_tokens == 2
        assert [m.finish for m in client.stream(REQUEST) if m.HasField("finish")]
        assert [model.id for model in client.models()] == ["demo"]


def test_who_is_named_by_a_token_cannot_pass_for_somebody_else(guarded: Guarded) -> None:
    seen: list[str] = []
    engine = guarded.server.engine
    submit = engine.submit

    def recorded(requests: list[Any]) -> None:
        seen.append(requests[0].client)
        submit(requests)

    engine.submit = recorded  # type: ignore[method-assign]
    for name in ("alice", "bob"):
        with Client(guarded.server.address, guarded.tokens[name]) as client:
            pretending = text_request("Hi", Options(max_tokens=1))
            pretending.user = "bob"
            client.generate(pretending)
            list(client.stream(pretending))
    engine.submit = submit  # type: ignore[method-assign]
    assert seen == ["alice", "alice", "bob", "bob"]


def test_a_revoked_token_ends_with_the_next_call(demo: ServedModel, tmp_path: Path) -> None:
    guarded = Guarded(demo, tmp_path)
    try:
        with Client(guarded.server.address, guarded.tokens["alice"]) as client:
            client.generate(REQUEST)
            kept = [line for line in guarded.file.read_text().splitlines() if not line.startswith("alice ")]
            guarded.file.write_text("\n".join(kept) + "\n", encoding="utf-8")
            told = failure(lambda: client.generate(REQUEST))
            assert (told.code, told.reason) == (StatusCode.UNAUTHENTICATED, "TOKEN_UNKNOWN")
    finally:
        guarded.server.close()


def test_many_callers_at_once_are_not_mixed_up(guarded: Guarded) -> None:
    """Each handler is given its own caller, though all calls share one event loop and are under way at once."""
    seen: dict[int, tuple[str, str]] = {}
    engine = guarded.server.engine
    submit = engine.submit

    def recorded(requests: list[Any]) -> None:
        seen[requests[0].prompt_ids[0]] = requests[0].client, requests[0].tenant
        submit(requests)

    engine.submit = recorded  # type: ignore[method-assign]
    names = ["alice", "bob"] * (CALLERS // 2)

    async def ask_all() -> list[Any]:
        async with grpc.aio.insecure_channel(guarded.server.address) as channel:
            generate: Any = channel.unary_unary(GENERATE, pb.GenerateRequest.SerializeToString)
            return await asyncio.gather(
                *(generate(of_ids(100 + i), metadata=guarded.bearer(name)) for i, name in enumerate(names))
            )

    assert len(asyncio.run(ask_all())) == CALLERS
    engine.submit = submit  # type: ignore[method-assign]
    assert seen == {100 + i: (name, name) for i, name in enumerate(names)}


def test_a_token_bounds_the_priority_of_its_requests(guarded: Guarded) -> None:
    guarded.tokens["high"], entry = new_token("high", [Scope.INFERENCE], 50)
    append(guarded.file, entry)
    request = text_request("My favourite", Options(max_tokens=2))
    for name, allowed, refused in (("alice", 0, 1), ("high", 50, 51)):
        request.priority = allowed
        guarded.channel.unary_unary(GENERATE)(
            request.SerializeToString(), metadata=guarded.bearer(name), timeout=PATIENCE
        )
        request.priority = refused
        found = guarded.unary(guarded.bearer(name), request.SerializeToString())
        assert found.code is StatusCode.INVALID_ARGUMENT and found.fields == ["priority"]
        assert f"{allowed}, the highest of this token" in found.text
