"""Weights that are not on this machine come once from the machine of `serve`, and only the tensors that are needed
here, into a cache that the next process here finds again, with a checksum for every piece.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from actors.loading import Weights, open_checkpoint
from actors.remote.caches import mirrors
from actors.remote.memory import RayMemory
from actors.remote.places import only_on
from actors.specs import ActorSpec
from model.checkpoint.folder import Checkpoint
from model.checkpoint.mirror import Mirror, Skeleton, Span, read_span, sha256, spans_of

log = logging.getLogger("eightwinds.actors")

_SOURCE = "weights"  # key of the cluster's memory: the node of the server that leads
_AT_ONCE = 2  # pieces on their way
_ATTEMPTS = 3  # ... of each that comes damaged
_NAMED_BY = 32  # digits of a checkpoint's digest


def say_where(memory: RayMemory) -> None:
    """This process's node has the checkpoint."""
    memory.write(_SOURCE, ray.get_runtime_context().get_node_id().encode())


def weights_of(spec: ActorSpec) -> Weights:
    """The folder, if it is on this machine, else its mirror in the cache. ValueError as `open_checkpoint`."""
    if not spec.cache or Path(spec.folder).is_dir():
        return Weights(open_checkpoint(spec))
    return PulledWeights(spec)


class PulledWeights(Weights):
    """A mirror of the spec's folder, which is on the machine of `serve`, with the tensors that were asked for."""

    def __init__(self, spec: ActorSpec) -> None:
        """ValueError if the folder there is not the one that the server began with."""
        self._spec, self._folder = spec, mirrors(spec.cache) / spec.digest[:_NAMED_BY]
        super().__init__(self._opened() or self._brought())
        self._mirror = Mirror(self._folder, "head" if spec.expert is None else f"expert-{spec.expert}")

    def _opened(self) -> Checkpoint | None:
        """None if there is no mirror, or one that a power cut or a bad disk has damaged."""
        try:
            checkpoint = Checkpoint.open(self._folder)
        except (OSError, ValueError):
            return None
        return checkpoint if checkpoint.digest == self._spec.digest else None

    def _brought(self) -> Checkpoint:
        skeleton: Skeleton = ray.get(self._source().skeleton.remote())
        skeleton.write(self._folder)
        if (checkpoint := self._opened()) is None:
            raise ValueError(f"{self._spec.folder} has changed since the server started: restart the server")
        return checkpoint

    def to_bring(self, names: Sequence[str]) -> int:
        return sum(span.end - span.begin for span in self._spans(names))

    def bring(self, names: Sequence[str], progress: Callable[[int], None]) -> None:
        """OSError where the disk is full; ValueError where pieces keep coming damaged."""
        spans = self._spans(names)
        with self._mirror.locked():
            missing = self._mirror.missing(spans)
            nbytes = sum(span.end - span.begin for span in missing)
            progress(self.to_bring(names) - nbytes)
            if missing:
                self._reserve(missing, nbytes)
                log.info("bringing %.2f GB of weights here from the machine of serve", nbytes / 1e9)
                self._pull(missing, progress)

    def _spans(self, names: Sequence[str]) -> list[Span]:
        return spans_of(self.checkpoint.tensors[name] for name in names)

    def _reserve(self, missing: Sequence[Span], nbytes: int) -> None:
        """Take room on the disk before anything comes: other processes here bring theirs at the same time."""
        try:
            self._mirror.reserve(missing)
        except OSError as error:
            free = shutil.disk_usage(self._folder).free
            raise OSError(
                f"{nbytes / 1e9:.1f} GB of weights do not fit into {self._spec.cache}, which has {free / 1e9:.1f} GB "
                f"free: make room there, or set model.cache to a folder that has it ({error})"
            ) from None

    def _pull(self, missing: Sequence[Span], progress: Callable[[int], None]) -> None:
        source, waiting = self._source(), list(reversed(missing))
        under_way: dict[Any, tuple[Span, int]] = {}
        while waiting or under_way:
            while waiting and len(under_way) < _AT_ONCE:
                span = waiting.pop()
                under_way[source.read.remote(span)] = span, 1
            (ref,), _ = ray.wait(list(under_way), num_returns=1)
            span, attempt = under_way.pop(ref)
            data, digest = ray.get(ref)
            try:
                self._mirror.put(span, data, digest)
            except ValueError:
                if attempt == _ATTEMPTS:
                    raise
                under_way[source.read.remote(span)] = span, attempt + 1
                continue
            progress(span.end - span.begin)

    def _source(self) -> Any:
        """A process on the machine of `serve` that reads for this one, and ends with its last handle."""
        node_id = RayMemory(ray.get_runtime_context().namespace).read(_SOURCE)
        assert node_id is not None, "a server says where the weights are before it starts an actor"
        remote: Any = ray.remote(_Reader)
        options = {
            "num_cpus": 0,
            "max_restarts": 3,
            "max_task_retries": 3,
            "scheduling_strategy": only_on(node_id.decode()),
        }
        return remote.options(**options).remote(self._spec.folder)


class _Reader:
    """Reads the checkpoint where it is."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def skeleton(self) -> Skeleton:
        return Skeleton.of(self._folder)

    def read(self, span: Span) -> tuple[bytes, str]:
        data = read_span(self._folder, span)
        return data, sha256(data)
