"""Long requests are examined in a process that may be ended: by its limits, by nobody's wish, or for want of work."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from cluster.engine.generation import GenerationRequest
from cluster.engine.served_model import DEMO_FOLDER
from cluster.gateway.auth import ANYBODY
from cluster.gateway.errors import ApiError, ErrorKind
from cluster.gateway.examination import process as examiner_process
from cluster.gateway.examination.examiner import Examiner
from cluster.gateway.examination.process import ExaminerProcess
from cluster.policy.scheduling.limits import Limits
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.fakes import PATIENCE

TOKENIZE = partial(Examiner.tokenize, request=pb.TokenizeRequest(prompt=pb.Prompt(text="hello")), context_length=9)


@pytest.fixture
def process() -> Iterator[ExaminerProcess]:
    process = ExaminerProcess(str(DEMO_FOLDER), 10.0, 256 << 20)
    yield process
    process.close()


def pid(examiner: Examiner) -> int:
    return os.getpid()


def spin(examiner: Examiner) -> None:
    while True:
        pass


def swell(examiner: Examiner) -> int:
    return len(bytearray(1 << 30))


def niceness(examiner: Examiner) -> int:
    return os.nice(0)


def refused(process: ExaminerProcess, work: Callable[[Examiner], object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        process.run(work)
    return caught.value


def test_results_and_refusals_are_those_of_the_same_work_here(process: ExaminerProcess) -> None:
    ids = process.run(TOKENIZE)
    assert ids.context_length == 9
    assert (
        process.run(partial(Examiner.detokenize, request=pb.DetokenizeRequest(token_ids=ids.token_ids))).text == "hello"
    )
    wrong = refused(process, partial(Examiner.detokenize, request=pb.DetokenizeRequest(token_ids=[1 << 20])))
    assert (wrong.kind, wrong.reason) == (ErrorKind.INVALID, "INVALID_FIELDS")
    assert "token_ids[0]" in wrong.text
    assert [v.field for v in wrong.violations] == ["token_ids[0]"], "the fields come back, too"


def test_one_process_does_all_and_gives_way(process: ExaminerProcess) -> None:
    first = process.run(pid)
    assert process.run(pid) == first != os.getpid()
    assert process.run(niceness) > os.nice(0)


@pytest.mark.parametrize("work", [spin, swell])
def test_what_takes_too_much_ends_with_its_process_alone(work: Callable[[Examiner], object]) -> None:
    process = ExaminerProcess(str(DEMO_FOLDER), 0.3, 256 << 20)
    try:
        first = process.run(pid)
        told = refused(process, work)
        assert (told.kind, told.reason) == (ErrorKind.EXHAUSTED, "REQUEST_TOO_COSTLY")
        assert process.run(pid) != first
        assert process.run(TOKENIZE).token_ids
    finally:
        process.close()


def test_a_process_that_was_killed_or_froze_is_replaced(
    process: ExaminerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = process.run(pid)
    os.kill(first, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(first)] if psutil.pid_exists(first) else [], timeout=PATIENCE)
    second = process.run(pid)
    assert second != first
    monkeypatch.setattr(examiner_process, "_STALLED_SECONDS", -30.0 + 0.5)
    os.kill(second, signal.SIGSTOP)
    assert refused(process, pid).reason == "REQUEST_TOO_COSTLY"
    assert not psutil.pid_exists(second)


def test_a_process_that_cannot_work_is_a_fault_and_not_the_requests(tmp_path: Path) -> None:
    process = ExaminerProcess(str(tmp_path / "gone"), 10.0, 256 << 20)
    with pytest.raises(RuntimeError, match="ended with 1"):
        process.run(pid)


def test_an_idle_process_ends_and_the_next_work_starts_another() -> None:
    process = ExaminerProcess(str(DEMO_FOLDER), 10.0, 256 << 20)
    try:
        first = process.run(partial(_idle_after, seconds=0.1))
        assert process._process is not None
        assert process._process.wait(PATIENCE) == 0
        assert process.run(pid) != first
    finally:
        process.close()


def _idle_after(examiner: Examiner, seconds: float) -> int:
    import sys

    sys.modules["__main__"]._IDLE_SECONDS = seconds  # type: ignore[attr-defined]  # the process's own module
    return os.getpid()


def test_what_cannot_be_started_is_said_to_be_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    process = ExaminerProcess(str(DEMO_FOLDER), 10.0, 256 << 20)

    def refuse(*given: object, **named: object) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert refused(process, pid).reason == "EXAMINATION_BUSY"


def test_a_server_that_is_killed_leaves_none(process: ExaminerProcess) -> None:
    """The pipe that it reads from ends with its server, however that ends."""
    child = psutil.Process(process.run(pid))
    assert process._process is not None
    assert process._process.stdin is not None
    process._process.stdin.close()
    assert not psutil.wait_procs([child], timeout=PATIENCE)[1]


def test_a_schema_is_compiled_there_too(process: ExaminerProcess) -> None:
    limits = Limits(4, 64, 64, 16, None)
    good, bad = '{"type": "object", "properties": {"a": {"type": "integer"}}}', '{"type": "nothing"}'

    def asked(schema: str) -> Callable[[Examiner], list[GenerationRequest]]:
        request = pb.GenerateRequest(prompt=pb.Prompt(text="a"), constraint=pb.Constraint(json_schema=schema))
        work = partial(Examiner.generations, requests=[request], limits=limits, caller=ANYBODY)
        return partial(work, whole=False)

    constraint = process.run(asked(good))[0].sequence.sampling.constraint
    assert constraint is not None
    assert constraint.text == good
    assert "constraint.json_schema" in refused(process, asked(bad)).text
