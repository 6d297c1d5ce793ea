"""Ray, applied: the plain classes of this package as detached, named actors, and the handles to them.

Two concurrency groups: `work` computes, `control` answers while work waits. Nothing is retried by Ray
(`max_task_retries=0`): the router sends an expert's call again, the engine a head's.
"""

import dataclasses
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray

from actors.expert import Expert
from actors.head import Head
from actors.messages import (
    HEADER_BYTES,
    ActorOptions,
    ActorReport,
    ActorSpec,
    HeadLost,
    HeadTaken,
    Message,
    RowsHeader,
    decode_header,
    encode_rows,
)
from actors.router import ExpertRouter
from actors.transport import ExpertCall, ExpertReply
from model.batch import HeadInfo, LoadProgress, StepFailure, StepPlan, StepResult
from model.wire import DTYPE_CODES, tensor_bytes, tensor_from

_GROUPS = {"work": 1, "control": 2}
_PROBE_SECONDS = 10.0


class RayTransport:
    """Experts behind Ray actor handles; calls and replies are object refs of messages (actors/messages.py).

    Refs live in the head, which waits for all of a layer's at once: Ray wakes it a single time. See
    `actors.transport.ExpertTransport`.
    """

    def __init__(self, methods: Mapping[tuple[int, int], Any], device: str = "cpu") -> None:
        """`methods[expert, replica]` is that actor's bound `forward`, ready for `.remote(message)`."""
        self._methods = dict(methods)
        self._device = device
        self._under_way: dict[Any, int] = {}

    def submit(self, calls: Sequence[ExpertCall]) -> None:
        """Send calls; it never blocks on the experts.

        All are encoded before the first is sent: from then on the experts compete for this machine's cores.
        """
        messages = [_encode(call) for call in calls]
        refs = [self._methods[c.expert, c.replica].remote(m) for c, m in zip(calls, messages, strict=True)]
        self._under_way.update(zip(refs, (call.call_id for call in calls), strict=True))

    def poll(self, timeout: float) -> list[ExpertReply]:
        """Replies of all calls under way, or those that came within `timeout` seconds."""
        refs = list(self._under_way)
        if not refs:
            return []
        try:  # the common case is one wait for all; an error of any of them raises, and so does the timeout
            messages = ray.get(refs, timeout=timeout)
        except ray.exceptions.RayError:
            done, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
            return [self._fetch(ref) for ref in done]
        call_ids = list(self._under_way.values())
        self._under_way.clear()
        return [self._reply(call_id, m) for call_id, m in zip(call_ids, messages, strict=True)]

    def _fetch(self, ref: Any) -> ExpertReply:
        call_id = self._under_way.pop(ref)
        try:
            return self._reply(call_id, ray.get(ref))
        except ray.exceptions.ActorDiedError as error:
            return ExpertReply(call_id, None, error=str(error), lost=True)
        except ray.exceptions.RayError as error:  # unavailable is not dead; a task's own error comes here too
            return ExpertReply(call_id, None, error=str(error))

    def _reply(self, call_id: int, message: Message) -> ExpertReply:
        h = decode_header(message)
        rows_RD = tensor_from(message, HEADER_BYTES, h.rows, h.columns, h.dtype_code).to(self._device)
        return ExpertReply(call_id, rows_RD, service_seconds=h.service_ns * 1e-9)


def _encode(call: ExpertCall) -> Message:
    rows, columns = call.rows_RD.shape
    header = RowsHeader(DTYPE_CODES[call.rows_RD.dtype], call.layer, rows, columns)
    return encode_rows(header, tensor_bytes(call.rows_RD))


class ExpertActor:
    """An `Expert`, its methods in concurrency groups."""

    def __init__(self, spec: ActorSpec) -> None:
        self._expert = Expert(spec)

    @ray.method(concurrency_group="work")
    def forward(self, message: Message) -> Message:
        """See `Expert.forward`."""
        return self._expert.forward(message)

    @ray.method(concurrency_group="control")
    def progress(self) -> LoadProgress:
        """See `Expert.progress`."""
        return self._expert.progress()

    @ray.method(concurrency_group="control")
    def report(self) -> ActorReport:
        """See `Expert.report`."""
        return _located(self._expert.report())


class HeadActor:
    """A `Head`, its methods in concurrency groups, and its router built on Ray."""

    def __init__(self, spec: ActorSpec) -> None:
        self._head = Head(spec)

    @ray.method(concurrency_group="work")
    def adopt(self, epoch: int, experts: Mapping[tuple[int, int], Any], grace: float) -> HeadInfo:
        """Connect to these expert handles, by (expert, replica), and `begin` the epoch."""
        methods = {key: handle.forward for key, handle in experts.items()}
        count = 1 + max(expert for expert, _ in experts)
        self._head.connect(ExpertRouter(RayTransport(methods, self._head.spec.device), count, grace))
        return self._head.begin(epoch)

    @ray.method(concurrency_group="work")
    def step(self, plan: bytes) -> bytes:
        """`Head.step` on pickled data: Ray moves `bytes` faster than objects."""
        return pickle.dumps(self._head.step(pickle.loads(plan)))

    @ray.method(concurrency_group="control")
    def progress(self) -> LoadProgress:
        """See `Head.progress`."""
        return self._head.progress()

    @ray.method(concurrency_group="control")
    def report(self) -> ActorReport:
        """See `Head.report`."""
        return _located(self._head.report())


def _located(report: ActorReport) -> ActorReport:
    node = ray.get_runtime_context().get_node_id()
    return dataclasses.replace(report, node_id=node)


def start_actor(name: str, spec: ActorSpec, options: ActorOptions, namespace: str) -> Any:
    """Create the detached actor `name`, or find it if it runs already; returns its handle at once."""
    decorate: Any = ray.remote(concurrency_groups=_GROUPS)  # type: ignore[call-overload]  # Ray's stubs lack it
    actor_class = decorate(HeadActor if spec.expert is None else ExpertActor)
    remote = actor_class.options(
        name=name,
        namespace=namespace,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_task_retries=0,
        num_cpus=options.num_cpus,
        num_gpus=options.num_gpus,
        resources=dict(options.resources) or None,
        scheduling_strategy="SPREAD",
    )
    return remote.remote(spec)


def progress_of(handles: Mapping[str, Any], timeout: float) -> Iterator[tuple[str, LoadProgress]]:
    """The progress of each actor that answers within `timeout` seconds; a failed construction is an error in it."""
    refs = {handle.progress.remote(): name for name, handle in handles.items()}
    done, _ = ray.wait(list(refs), num_returns=len(refs), timeout=timeout)
    for ref in done:
        try:
            yield refs[ref], ray.get(ref)
        except ray.exceptions.RayError as error:
            yield refs[ref], LoadProgress(0, 0, error=_cause(error))


def report_of(handle: Any, timeout: float = _PROBE_SECONDS) -> ActorReport:
    """What an actor holds; raises Ray's error if it does not answer."""
    report: ActorReport = ray.get(handle.report.remote(), timeout=timeout)
    return report


def _cause(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


class RemoteHead:
    """A `HeadHandle` on a head actor. After `HeadLost` the engine calls `begin` until the restarted head answers."""

    def __init__(
        self, head: Any, experts: Mapping[tuple[int, int], Any], grace: float, begin_timeout: float = 120.0
    ) -> None:
        self._head, self._experts, self._grace, self._begin_timeout = head, dict(experts), grace, begin_timeout
        self._ref: Any = None

    def begin(self, epoch: int) -> HeadInfo:
        """See `HeadHandle`."""
        self._ref = None
        info: HeadInfo = self._get(self._head.adopt.remote(epoch, self._experts, self._grace), self._begin_timeout)
        return info

    def submit(self, plan: StepPlan) -> None:
        """See `HeadHandle`."""
        self._ref = self._head.step.remote(pickle.dumps(plan))

    def poll(self, timeout: float | None) -> StepResult | StepFailure | None:
        """See `HeadHandle`."""
        if self._ref is None:
            return None
        done, _ = ray.wait([self._ref], timeout=timeout)
        if not done:
            return None
        ref, self._ref = self._ref, None
        result: StepResult | StepFailure = pickle.loads(self._get(ref, None))
        return result

    def _get(self, ref: Any, timeout: float | None) -> Any:
        try:
            return ray.get(ref, timeout=timeout)
        except HeadTaken:
            raise
        except ray.exceptions.RayError as error:  # died, unavailable, timed out: what it had is in doubt
            raise HeadLost(_cause(error)) from None


def stop_actors(names: list[str], namespace: str, timeout: float = 10.0) -> None:
    """Kill these named actors for good and wait until Ray has forgotten their names."""
    for name in names:
        try:
            ray.kill(ray.get_actor(name, namespace=namespace), no_restart=True)
        except ValueError:
            continue  # no such actor
    end = time.monotonic() + timeout
    while time.monotonic() < end and any(find_actor(name, namespace) for name in names):
        time.sleep(0.05)


def find_actor(name: str, namespace: str) -> Any | None:
    """The handle of a running named actor, or None."""
    try:
        return ray.get_actor(name, namespace=namespace)
    except ValueError:
        return None
