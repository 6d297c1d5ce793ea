"""A failure as gRPC's status: the code of its kind, and the details that it has."""

import pytest
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2  # known to MessageToDict once it is imported
from grpc import StatusCode

from cluster.gateway.errors import ApiError, ErrorKind, Violation, exhausted, invalid, unavailable, unknown_model
from cluster.gateway.rpc.status import CODES, status_of

ERROR_INFO = error_details_pb2.ErrorInfo.DESCRIPTOR.full_name


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ErrorKind.INVALID, StatusCode.INVALID_ARGUMENT),
        (ErrorKind.UNAUTHENTICATED, StatusCode.UNAUTHENTICATED),
        (ErrorKind.FORBIDDEN, StatusCode.PERMISSION_DENIED),
        (ErrorKind.NOT_FOUND, StatusCode.NOT_FOUND),
        (ErrorKind.PRECONDITION, StatusCode.FAILED_PRECONDITION),
        (ErrorKind.ABORTED, StatusCode.ABORTED),
        (ErrorKind.EXHAUSTED, StatusCode.RESOURCE_EXHAUSTED),
        (ErrorKind.UNAVAILABLE, StatusCode.UNAVAILABLE),
        (ErrorKind.INTERNAL, StatusCode.INTERNAL),
    ],
)
def test_each_kind_has_its_code(kind: ErrorKind, code: StatusCode) -> None:
    assert CODES[kind] is code
    assert status_of(ApiError(kind, "A", "b"), "r").code == code.value[0]


def test_no_kind_is_without_a_code() -> None:
    assert set(CODES) == set(ErrorKind)


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (
            invalid([Violation("a.b", "is wrong")]),
            {"@type": "BadRequest", "fieldViolations": [{"field": "a.b", "description": "is wrong"}]},
        ),
        (
            unknown_model("x", "y"),
            {
                "@type": "ResourceInfo",
                "resourceType": "eightwinds.v1.Model",
                "resourceName": "x",
                "description": "model 'x' is not served here; use 'y' or leave it empty",
            },
        ),
        (unavailable("STARTING", "wait", 2.0), {"@type": "RetryInfo", "retryDelay": "2s"}),
        (exhausted("FULL", "wait", 1.25), {"@type": "RetryInfo", "retryDelay": "1.250s"}),
        (exhausted("TOO_COSTLY", "never"), None),
        (ApiError(ErrorKind.INTERNAL, "INTERNAL", "failed"), {"@type": "RequestInfo", "requestId": "some-id"}),
    ],
    ids=lambda value: value.reason if isinstance(value, ApiError) else "",
)
def test_a_status_carries_an_error_info_and_the_failures_detail(error: ApiError, detail: dict[str, object]) -> None:
    status = status_of(error, "some-id")
    assert status.message == error.text
    assert status.details[0].TypeName() == ERROR_INFO
    info, *others = MessageToDict(status)["details"]
    assert (info["reason"], info["domain"]) == (error.reason, "eightwinds.dev")
    for other in others:
        other["@type"] = other["@type"].removeprefix("type.googleapis.com/google.rpc.")
    assert others == ([detail] if detail else [])


def test_a_status_of_very_many_violations_fits_into_headers() -> None:
    status = status_of(invalid([Violation(f"fields[{i}]", "x" * 300) for i in range(100)]), "r")
    fields = MessageToDict(status)["details"][1]["fieldViolations"]
    assert len(fields) == 32 and all(len(field["description"]) == 200 for field in fields)
    assert len(status.message) == 1000 and status.message.endswith("...")
