"""The head: attention, KV cache, gate and sampler in one process; a pure executor of the engine's plans."""

import os
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import torch

from actors.loading import Loading, Weights, open_checkpoint
from actors.micro_batches import MicroBatches
from actors.routing.router import ExpertRouter, ExpertUnavailable
from actors.routing.step_counts import StepCounts
from actors.seams import HeadTaken
from actors.specs import ActorReport, ActorSpec, kv_bytes
from model.attention.attention import choose_backend
from model.attention.kv_cache import PagedKVCache
from model.attention.ragged import RaggedBatch
from model.batch import Chunk, HeadInfo, LoadProgress, SequenceFault, StepFailure, StepPlan, StepResult
from model.checkpoint.folder import eos_ids
from model.checkpoint.weights import Tensors, torch_dtype
from model.config import MixtralConfig
from model.constraint.grammar import Constraints
from model.device.failure import lost_device
from model.device.host_link import emptied
from model.device.memory import free_bytes
from model.linear import keep_one_order
from model.matrices.forms import MATRICES
from model.slots import Slots
from model.text.tokenizer import Tokenizer
from model.trunk import Trunk, watched
from model.wire import allow_read_only_buffers


class Head:
    """Loading starts with construction, in the background. `connect` gives it its router, the engine its plans."""

    def __init__(self, spec: ActorSpec, weights: Weights | None = None) -> None:
        """The weights are those of the spec's folder unless they are given. Raises ValueError if the checkpoint or the
        KV memory is not what it should be.
        """
        allow_read_only_buffers()
        self.spec, self.incarnation = spec, uuid.uuid4().hex
        self._source = weights or Weights(open_checkpoint(spec))
        self._checkpoint = self._source.checkpoint
        self._names = self._checkpoint.head_names()
        self._dtype = torch_dtype(spec.dtype)
        if not spec.kv_memory_share:
            self._pages_in(spec.kv_memory_bytes)
        self._trunk: Trunk | None = None
        self._cache: PagedKVCache | None = None
        self._router: ExpertRouter | None = None
        self._epoch, self._slots = -1, Slots(lambda constraint: self._constraints.matcher(constraint))
        self._first_fault, self._in_doubt = "", False
        config, device = self._checkpoint.config, torch.device(spec.device)
        self.micro_batches = MicroBatches(spec.micro_batches)
        keep_one_order(device)
        self._attention = choose_backend(self._dtype, device, config.head_dim, config.sliding_window, spec.page_size)
        nbytes = self._source.to_bring(self._names) + self._checkpoint.nbytes(self._names)
        self._loading = Loading(nbytes, self._load)

    def _load(self, progress: Callable[[int], None]) -> None:
        self._source.bring(self._names, progress)
        tensors = Tensors(self._checkpoint, self._names, self._dtype, self.spec.device, progress)
        self._trunk = Trunk(self._checkpoint.config, tensors, MATRICES[self.spec.quantization])

    def _pages_in(self, memory: int) -> int:
        spec = self.spec
        page = spec.page_size * self._checkpoint.config.kv_token_bytes(self._dtype.itemsize)
        if memory < page:
            key = "kv.memory_share" if spec.kv_memory_share and not spec.kv_memory_most else "kv.memory_bytes"
            need = f"one page of {spec.page_size} tokens needs {page}"
            raise ValueError(f"the KV cache gets {memory} bytes, but {need}: raise {key}")
        return memory // page

    def _allocate(self) -> PagedKVCache:
        """The KV cache; made when every weight of the server is loaded, so that a share is one of what is left."""
        spec = self.spec
        memory = kv_bytes(spec, free_bytes(torch.device(spec.device)) if spec.kv_memory_share else 0)
        return PagedKVCache(self._checkpoint.config, self._pages_in(memory), spec.page_size, self._dtype, spec.device)

    @cached_property
    def _constraints(self) -> Constraints:
        checkpoint = self._checkpoint  # the vocabulary is read with the first request that has a constraint
        tokenizer = Tokenizer.load(checkpoint.folder)
        return Constraints(tokenizer, checkpoint.config.vocab_size, tokenizer.eos_ids(eos_ids(checkpoint)))

    def progress(self) -> LoadProgress:
        return self._loading.progress()

    def connect(self, router: ExpertRouter) -> None:
        self._router = router

    @property
    def config(self) -> MixtralConfig:
        return self._checkpoint.config

    def zero_rows(self) -> torch.Tensor:
        """Rows such as a layer sends to an expert, all 0: for a call that only warms up, [4, D]."""
        return torch.zeros(4, self.config.hidden_size, dtype=self._dtype)

    def begin(self, epoch: int) -> HeadInfo:
        """Serve the engine of this epoch: forget every sequence, refuse plans of other epochs.

        Waits for the weights; RuntimeError if they could not be loaded, ValueError if the KV cache has no room,
        HeadTaken if an engine with a higher epoch has taken over.
        """
        if epoch <= self._epoch:
            raise HeadTaken(f"an engine of epoch {self._epoch} drives this head; {epoch} came too late", self._epoch)
        progress = self._loading.wait()
        if not progress.ready:
            raise RuntimeError(progress.error)
        self._cache = self._cache or self._allocate()
        self._epoch, self._in_doubt = epoch, False
        self._slots.clear()
        return HeadInfo(self.incarnation, self._cache.page_count, self.spec.page_size)

    @torch.inference_mode()
    def step(self, plan: StepPlan) -> StepResult | StepFailure:
        """Carry out a plan. After a StepFailure the engine must `begin` anew: the sequences are in doubt. It raises
        nothing but what leaves a process that can do no more (`model.device.failure`).
        """
        if (plan.epoch, plan.incarnation) != (self._epoch, self.incarnation):
            return StepFailure(plan.step, "stale", f"this head serves epoch {self._epoch}, not {plan.epoch}")
        if self._in_doubt:
            return StepFailure(plan.step, "stale", "a step before it failed: begin anew")
        assert self._trunk and self._cache and self._router, "begin and connect come first"
        started, counts = time.perf_counter(), StepCounts()
        try:
            self._slots.apply(plan)
            self._cache.copy(plan.copies)
            chunks = self._slots.runnable(plan.chunks)
            parts = self.micro_batches.parts(chunks, large=self._slots.scores_prompts(chunks))
            batches = [self._slots.batch(part, self.spec.page_size, self.spec.device) for part in parts]
            forwards = [self._trunk.forward(batch, self._cache, self._attention) for batch in batches]
            logits_RV = emptied(self._router.run(forwards, counts))
            self.micro_batches.observe(time.perf_counter() - started)
            tokens, prompts, faults = self._slots.results(logits_RV, chunks)
            if any(fault.kind == "numeric" for fault in faults):
                faults = self._located(faults, plan.step, batches)
        except ExpertUnavailable as error:
            self._in_doubt = True
            return StepFailure(plan.step, "unavailable", str(error))
        except Exception as error:  # a bug of ours: the engine fails the requests and logs what is said here
            if lost_device(error):
                raise
            self._in_doubt = True
            return StepFailure(plan.step, "internal", traceback.format_exc())
        return StepResult(
            plan.step,
            plan.epoch,
            tokens,
            counts.expert_tokens,
            self._routing(chunks, counts),
            counts.retries,
            time.perf_counter() - started,
            counts.dispatch_seconds,
            prompts,
            faults,
        )

    def _located(
        self, faults: Sequence[SequenceFault], step: int, batches: Sequence[RaggedBatch]
    ) -> tuple[SequenceFault, ...]:
        """Faults that say where the first of this head's numbers came to be none: the step is run again, watched.

        What it writes to the cache is there already. Only the first fault is looked for: a checkpoint that overflows
        needs one place, and a second run of each step would slow the others.
        """
        assert self._trunk and self._cache and self._router
        if not self._first_fault:
            place: list[str] = []
            for batch in batches:
                forward = self._trunk.forward(batch, self._cache, self._attention)
                self._router.run([watched(forward, place)], StepCounts())
            self._first_fault = f"first in step {step}, {place[0] if place else 'behind the last layer'}"
        place_of = {"numeric": f" ({self._first_fault})"}
        return tuple(replace(f, detail=f.detail + place_of.get(f.kind, "")) for f in faults)

    def _routing(
        self, chunks: Sequence[Chunk], counts: StepCounts
    ) -> tuple[tuple[int, tuple[tuple[int, ...], ...]], ...]:
        def expert_rows(chosen_K: torch.Tensor) -> tuple[int, ...]:
            return tuple(torch.bincount(chosen_K.flatten(), minlength=self.config.num_local_experts).tolist())

        routed = self._slots.routed(chunks)
        chosen = counts.chosen if routed else []
        return tuple(
            (slot, tuple(expert_rows(chosen_TK[row : row + rows]) for chosen_TK in chosen))
            for slot, row, rows in routed
        )

    def report(self) -> ActorReport:
        held = self._trunk.nbytes() if self._trunk else 0
        tensors = {name: self._checkpoint.tensors[name].nbytes for name in self._names} if held else {}
        return ActorReport(os.getpid(), "", self.spec, held, tensors)


class LocalHead:
    """A `HeadHandle` on a head in this process: the plan is carried out when it is polled."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._plans: deque[StepPlan] = deque()

    def begin(self, epoch: int) -> HeadInfo:
        self._plans.clear()
        return self._head.begin(epoch)

    def submit(self, plan: StepPlan) -> None:
        self._plans.append(plan)

    def poll(self, timeout: float | None) -> StepResult | StepFailure | None:
        return self._head.step(self._plans.popleft()) if self._plans else None
