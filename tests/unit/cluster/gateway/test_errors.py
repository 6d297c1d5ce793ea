"""Failures on their way to the client, over a real connection: code, reason, details, and never an exception's text."""

import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import astuple
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.engine.engine import QueueFull
from cluster.engine.generation import GenerationFailed
from cluster.engine.served_model import ServedModel
from cluster.gateway.errors import ApiError, ErrorKind, Violation, exhausted, invalid, to_api_error, unknown_model
from model.text.tokenizer import Tokenizer
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.engines import engine_bounds
from tests.fakes import PATIENCE, FakeHead
from tests.serving import Failure, Serving, failure

ServeFake = Callable[..., Serving]
METHODS = ("Generate", "GenerateStream", "Tokenize", "Detokenize", "ListModels")
PROMPT = pb.Prompt(text="My favourite")


def small(**fields: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(prompt=PROMPT, stopping=pb.Stopping(max_tokens=3, ignore_eos=True), **fields)


def send(serving: Serving, method: str, raw: bytes, request_id: str = "") -> object:
    """Send bytes to a method as they are."""
    path = f"/eightwinds.v1.InferenceService/{method}"
    metadata = (("x-request-id", request_id),) if request_id else ()
    if method == "GenerateStream":
        return list(serving.channel.unary_stream(path)(raw, metadata=metadata))
    return serving.channel.unary_unary(path)(raw, metadata=metadata)


def of(told: Failure) -> tuple[StatusCode, str, list[str]]:
    return told.code, told.reason, told.details


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "raw", [b"\xff\xff\xff", b"\x0a\x05abc", b"\x08", b"rubbish", b"\x00" * 40], ids=lambda raw: raw[:4].hex()
)
def test_bytes_that_are_no_message_are_an_invalid_argument(method: str, raw: bytes, serving: Serving) -> None:
    assert of(failure(lambda: send(serving, method, raw))) == (
        StatusCode.INVALID_ARGUMENT,
        "MALFORMED_MESSAGE",
        ["ErrorInfo"],
    )


@pytest.mark.parametrize(
    ("method", "raw"),
    [
        *((method, b"\x0a\x02\xc3\x28") for method in METHODS[:4]),  # field 1, model
        ("ListModels", b"\x12\x02\xc3\x28"),  # field 2, page_token
        ("Generate", b"\x12\x04\x0a\x02\xff\xfe"),  # prompt.text
    ],
)
def test_a_string_that_is_no_utf8_is_an_invalid_argument(method: str, raw: bytes, serving: Serving) -> None:
    assert failure(lambda: send(serving, method, raw)).code is StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("method", METHODS)
def test_a_message_over_the_limit_is_refused_with_the_limit(method: str, serve_fake: ServeFake) -> None:
    server = serve_fake(FakeHead(), max_message_bytes=2000)
    request = (
        pb.ListModelsRequest(page_token="x" * 2000) if method == "ListModels" else pb.TokenizeRequest(model="x" * 2000)
    )
    told = failure(lambda: send(server, method, request.SerializeToString()))
    assert of(told) == (StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", ["ErrorInfo"])
    assert "at most 2000" in told.text


def test_a_message_far_over_the_limit_is_refused_by_grpc_itself(serve_fake: ServeFake) -> None:
    server = serve_fake(FakeHead(), max_message_bytes=2000)
    with pytest.raises(grpc.RpcError) as caught:
        send(server, "Tokenize", b"x" * 9000)
    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("name", ["other", "Demo", "m" * 10_000, "\u00e9" * 3000])
@pytest.mark.parametrize("method", METHODS[:4])
def test_an_unknown_model_is_not_found(method: str, name: str, serving: Serving) -> None:
    raw = pb.DetokenizeRequest(model=name).SerializeToString()  # field 1 in each of them
    told = failure(lambda: send(serving, method, raw))
    assert of(told) == (StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", ["ErrorInfo", "ResourceInfo"])
    assert told.resource[:90] == name[:90]
    assert "'demo'" in told.text


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (pb.ListModelsRequest(page_size=-1), "page_size"),
        (pb.ListModelsRequest(page_token="next"), "page_token"),
        (pb.TokenizeRequest(), "prompt"),
        (pb.TokenizeRequest(prompt=pb.Prompt(token_ids=pb.TokenIds(ids=[3, 2048]))), "prompt.token_ids.ids[1]"),
        (pb.TokenizeRequest(prompt=pb.Prompt(chat=pb.Chat())), "prompt.chat"),
        (pb.DetokenizeRequest(token_ids=[3, -1]), "token_ids[1]"),
        (pb.DetokenizeRequest(token_ids=[2048]), "token_ids[0]"),
    ],
)
def test_the_other_methods_name_wrong_fields_too(request_: Any, path: str, serving: Serving) -> None:
    method = type(request_).__name__.removesuffix("Request")
    told = failure(lambda: send(serving, method, request_.SerializeToString()))
    assert of(told) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", ["ErrorInfo", "BadRequest"])
    assert told.fields == [path]


def test_a_request_over_the_whole_kv_cache_is_refused(serve_fake: ServeFake) -> None:
    server = serve_fake(FakeHead(page_count=4, page_size=4))
    prompt = pb.Prompt(token_ids=pb.TokenIds(ids=[5, 6, 7]))
    told = failure(
        lambda: server.client.generate(pb.GenerateRequest(prompt=prompt, stopping=pb.Stopping(max_tokens=14)))
    )
    assert (told.code, told.fields) == (StatusCode.INVALID_ARGUMENT, ["stopping.max_tokens"])
    assert told.metadata == {"promptTokens": "3", "contextLength": "16", "maxTokens": "14"}


@pytest.mark.parametrize("method", METHODS[:2])
def test_a_full_queue_says_when_to_come_again(method: str, serve_fake: ServeFake) -> None:
    head = FakeHead()
    server = serve_fake(head, max_running=1, max_queued=1)
    head.hold()
    call = server.client.stub.Generate.future(small(n=2))
    head.wait_for_plan()
    told = failure(lambda: send(server, method, small().SerializeToString()))
    assert of(told) == (StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", ["ErrorInfo", "RetryInfo"])
    assert told.retry_seconds is not None and told.retry_seconds >= 1
    head.let_go()
    assert call.result(PATIENCE).outputs, "the refused one disturbs nobody"
    server.idle()


def test_a_client_that_does_not_read_is_told_so() -> None:
    error = to_api_error(GenerationFailed("slow"), "some-id")
    assert (error.kind, error.reason, error.retry_seconds) == (ErrorKind.EXHAUSTED, "CLIENT_TOO_SLOW", 1.0)


@pytest.mark.parametrize("method", METHODS[:2])
def test_before_the_model_is_loaded_requests_are_told_to_come_again(method: str, demo: ServedModel) -> None:
    server = Serving(demo)
    try:
        told = failure(lambda: send(server, method, small().SerializeToString()))
        assert of(told) == (StatusCode.UNAVAILABLE, "STARTING", ["ErrorInfo", "RetryInfo"])
        assert told.retry_seconds == 2
        assert not server.client.models()[0].ready, "but what needs no weights is answered"
    finally:
        server.close()


@pytest.mark.parametrize("method", METHODS[:2])
@pytest.mark.parametrize(
    ("outcome", "code", "reason", "details"),
    [
        ("unavailable", StatusCode.UNAVAILABLE, "EXPERT_UNAVAILABLE", ["ErrorInfo", "RetryInfo"]),
        ("internal", StatusCode.INTERNAL, "INTERNAL", ["ErrorInfo", "RequestInfo"]),
        (ZeroDivisionError("a secret"), StatusCode.INTERNAL, "INTERNAL", ["ErrorInfo", "RequestInfo"]),
    ],
    ids=["unavailable", "internal", "unforeseen"],
)
def test_a_failure_of_the_model_ends_the_call(
    outcome: str | Exception, code: StatusCode, reason: str, details: list[str], method: str, serve_fake: ServeFake
) -> None:
    head = FakeHead()
    server = serve_fake(head)
    head.outcomes.extend(["", "", outcome])
    told = failure(lambda: send(server, method, small().SerializeToString(), "abc-1"))
    assert of(told) == (code, reason, details)
    assert told.request_id == ("abc-1" if code is StatusCode.INTERNAL else "")
    assert "secret" not in told.text


def test_after_its_engine_has_ended_a_server_says_unavailable(serve_fake: ServeFake) -> None:
    server = serve_fake(FakeHead())
    server.engine.stop()
    told = failure(lambda: server.client.generate(small()))
    assert of(told) == (StatusCode.UNAVAILABLE, "ENGINE_STOPPED", ["ErrorInfo", "RetryInfo"])


@pytest.mark.parametrize("method", ["Generate", "GenerateStream", "Tokenize"])
def test_a_bug_is_internal_and_its_text_stays_in_the_log(
    method: str, serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def encode(self: Tokenizer, text: str, **options: bool) -> list[int]:
        raise KeyError("a secret")

    monkeypatch.setattr(Tokenizer, "encode", encode)
    raw = small() if method.startswith("Generate") else pb.TokenizeRequest(prompt=PROMPT)
    told = failure(lambda: send(serving, method, raw.SerializeToString()))
    assert of(told) == (StatusCode.INTERNAL, "INTERNAL", ["ErrorInfo", "RequestInfo"])
    assert "secret" not in told.text and "KeyError" not in told.text
    assert "a secret" in caplog.text and told.request_id in caplog.text
    assert told.request_id == told.trailing["x-request-id"] != "", "an id is made where the caller gave none"


SAMPLE = small(
    model="demo",
    sampling=pb.Sampling(temperature=0.5, logit_bias={5: 1.0}),
    output=pb.OutputOptions(logprobs=3, trace=True),
    request_id="abc",
).SerializeToString()


@pytest.fixture(scope="module")
def brief(demo: ServedModel) -> Iterator[Serving]:
    """A server whose outputs are short, whatever is asked."""
    head = FakeHead(page_count=16, page_size=4, sample=lambda new, ids: demo.tokenizer.eos_id)
    server = Serving(demo).ready(head, engine_bounds())
    yield server
    server.close()


@settings(max_examples=150, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    edits=st.lists(st.tuples(st.integers(0, len(SAMPLE)), st.binary(max_size=3), st.integers(0, 4)), max_size=4),
)
def test_no_bytes_at_all_make_a_method_fail_by_itself(
    method: str, edits: list[tuple[int, bytes, int]], brief: Serving
) -> None:
    raw = SAMPLE
    for place, inserted, dropped in edits:
        raw = raw[:place] + inserted + raw[place + dropped :]
    try:
        send(brief, method, raw)
    except grpc.RpcError as error:
        assert error.code() in (StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND), error


def test_the_request_id_comes_back_with_a_failure(serving: Serving) -> None:
    wrong = small(n=99)
    assert (
        failure(lambda: send(serving, "Generate", wrong.SerializeToString(), "m-1")).trailing["x-request-id"] == "m-1"
    )
    wrong.request_id = "body"
    assert (
        failure(lambda: send(serving, "Generate", wrong.SerializeToString(), "m-1")).trailing["x-request-id"] == "body"
    )
    wrong.request_id = "\u00e9"
    assert (
        failure(lambda: send(serving, "Generate", wrong.SerializeToString(), "m-1")).trailing["x-request-id"] == "m-1"
    )
    assert failure(lambda: send(serving, "Generate", b"\xff", "m" * 300)).trailing["x-request-id"] != "m" * 300


def test_an_unknown_method_is_unimplemented(serving: Serving) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        send(serving, "Guess", b"")
    assert caught.value.code() is StatusCode.UNIMPLEMENTED


def test_a_failure_in_mid_stream_comes_after_the_pieces_so_far(serve_fake: ServeFake) -> None:
    head, got, first = FakeHead(), [], threading.Event()
    server = serve_fake(head)
    head.hold()
    head.outcomes.extend(["", "unavailable"])

    def read() -> None:
        for message in server.client.stream(small(output=pb.OutputOptions(token_ids=True))):
            got.append(message)
            first.set()
            head.let()

    head.let()
    assert failure(read).code is StatusCode.UNAVAILABLE
    assert first.is_set() and len(got) == 1


def test_each_exception_has_one_failure() -> None:
    assert to_api_error(QueueFull(2.5), "r").kind is ErrorKind.EXHAUSTED
    own = ApiError(ErrorKind.ABORTED, "MOVED", "it moved")
    assert to_api_error(own, "r") is own
    assert to_api_error(ValueError("secret"), "r").text.count("secret") == 0


def test_a_failure_comes_whole_from_another_process() -> None:
    for error in (invalid([Violation("a.b", "is wrong")], {"k": "v"}), unknown_model("x", "y"), exhausted("A", "b", 2)):
        assert astuple(pickle.loads(pickle.dumps(error))) == astuple(error)
