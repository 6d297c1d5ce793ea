"""A CUDA device for tests on a CPU: tensors that say they are on it, and streams that copy late.

What goes wrong only on a card is refused here: operands on two devices, a wait that nothing asked for (`.cpu()`,
`.item()`, `bool`, an index list, a copy that blocks or whose host side is not pinned), a stream that reads what another
one may still be writing or what may be given out again meanwhile, host memory that is read before its copy has ended
(until then it holds poison), results of attention taken for contiguous.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

CUDA = torch.device("cuda", 0)
T = torch.Tensor
_DEVICE, _IS_CUDA = T.device.__get__, T.is_cuda.__get__  # type: ignore[attr-defined]
_METADATA = {
    getter.__get__
    for name in ("shape", "dtype", "ndim", "nbytes", "layout", "T", "mT", "names", "is_sparse")
    if (getter := getattr(T, name, None)) is not None
}
_WAITS = {
    *(T.item, T.tolist, T.numpy, T.cpu, T.__bool__, T.__int__, T.__float__, T.__index__, T.__contains__),
    *(T.nonzero, torch.nonzero, T.masked_select, torch.masked_select, T.unique, torch.unique, T.bincount),
    *(torch.bincount, T.equal, torch.equal, T.is_nonzero, torch.is_nonzero),
}
_ASKS = {
    T.size,
    T.dim,
    T.__len__,
    T.numel,
    T.element_size,
    T.is_contiguous,
    T.stride,
    T.data_ptr,
    T.is_floating_point,
    T.__repr__,
}


class Stream:
    """Work in order; copies to the host end when somebody waits for them."""

    def __init__(self, device: object = None) -> None:
        self.done = 0  # pieces of work so far
        self.seen: dict[Stream, int] = {}  # ... of other streams that this one has waited for
        self.copies: list[tuple[T, T]] = []
        self.awaited = device is not None  # a side stream of ours is waited for before what it reads is given back

    def wait_stream(self, other: "Stream") -> None:
        """What comes next here comes after what is there now."""
        self.seen[other] = other.done

    def synchronize(self) -> None:
        """The host waits."""
        PretendCuda.now.waits += 1
        for host, value in self.copies:
            host.copy_(value)
        self.copies.clear()


class PretendCuda(TorchFunctionMode):
    """While it is entered, device "cuda" exists. `waits`: how often the host waited for it; `copies`: transfers."""

    now: "PretendCuda"

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.copies = 0, 0
        self.default = self.current = Stream()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == _DEVICE:
            return CUDA if _there(args[0]) else torch.device("cpu")
        if func == _IS_CUDA:
            return _there(args[0])
        if func in _METADATA or func in _ASKS:
            return func(*args, **kwargs)
        if func is T.pin_memory:
            return _pinned(args[0].clone())
        if func in (T.to, T.cuda):
            return self._to(*args, **kwargs)
        if func is T.copy_:
            return self._copy(*args, **kwargs)
        pinned = kwargs.pop("pin_memory", False)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, T)]
        target = kwargs.get("device")
        there = any(map(_there, tensors)) or (target is not None and torch.device(target).type == "cuda")
        if not there:
            made = func(*args, **kwargs)
            return _pinned(made) if pinned else made
        assert func not in _WAITS, f"{func.__name__} makes the host wait for the device"
        if func in (T.__getitem__, T.__setitem__):
            _check_index(args[1])
        assert func is not torch.where or len(args) == 3, "where(condition) makes the host wait for the device"
        assert func not in (torch.tensor, torch.as_tensor), (
            "a blocking copy to the device: use model.device.host_link.put"
        )
        strangers = [t for t in tensors if not _there(t) and t.dim() > 0]
        assert not strangers, f"{getattr(func, '__name__', func)}: operands on the host and on the device"
        for tensor in filter(_there, tensors):
            self._must_see(tensor)
        if target is not None:
            kwargs["device"] = "cpu"
        self.current.done += 1
        made = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:  # as the kernels of a card lay it out
            made = made.transpose(1, 2).contiguous().transpose(1, 2)
        return tree_map_only(T, self._mark, made)

    def _mark(self, tensor: T) -> T:
        tensor._pretend = (self.current, self.current.done)  # type: ignore[attr-defined]
        return tensor

    def _must_see(self, tensor: T) -> None:
        stream, number = tensor._pretend  # type: ignore[attr-defined]
        assert stream is self.current or self.current.seen.get(stream, 0) >= number, (
            "a stream reads what another one may still be writing: let it wait_stream"
        )
        assert stream is self.current or self.current.awaited or self.current in getattr(tensor, "_recorded", ()), (
            "the memory of this tensor may be given out again while the stream reads it: record_stream"
        )

    def _to(self, tensor: T, *args: Any, **kwargs: Any) -> T:
        devices = [a for a in (*args, kwargs.get("device")) if isinstance(a, (str, torch.device))]
        rest = [a for a in args if not isinstance(a, (str, torch.device))]
        blocking = not kwargs.pop("non_blocking", False)
        kwargs.pop("device", None)
        to_device = torch.device(devices[0]).type == "cuda" if devices else _there(tensor)
        if to_device == _there(tensor):
            moved: T = tensor.to(*rest, **kwargs) if rest or kwargs else tensor
            return self._mark(moved) if to_device and moved is not tensor else moved
        assert to_device, "to() makes the host wait for the device"
        assert blocking or hasattr(tensor, "_pinned"), "only from pinned memory a copy to the device does not wait"
        self.waits += blocking
        self.copies += 1
        self.current.done += 1
        return self._mark(tensor.to(*rest, **{**kwargs, "copy": True}))

    def _copy(self, target: T, source: T, non_blocking: bool = False) -> T:
        if _there(target) == _there(source):
            if _there(target):
                self.current.done += 1
            return target.copy_(source)
        assert not _there(target) and non_blocking, "a blocking copy makes the host wait for the device"
        assert hasattr(target, "_pinned"), "only to pinned memory a copy from the device does not wait"
        self._must_see(source)
        self.copies += 1
        self.current.copies.append((target, source.clone()))
        return target.fill_(-77)  # what is read too early shows


def _there(tensor: T) -> bool:
    return hasattr(tensor, "_pretend")


def _pinned(tensor: T) -> T:
    tensor._pinned = True  # type: ignore[attr-defined]
    return tensor


def _check_index(index: Any) -> None:
    for part in index if isinstance(index, tuple) else (index,):
        assert not isinstance(part, list), "an index list is copied to the device, and the host waits"
        assert not (isinstance(part, T) and part.dtype is torch.bool), "a mask as index makes the host wait: device"


def _record(tensor: T, stream: Stream) -> None:
    tensor._recorded = (*getattr(tensor, "_recorded", ()), stream)  # type: ignore[attr-defined]


@contextmanager
def pretend_cuda(monkeypatch: pytest.MonkeyPatch, free: int = 1 << 30) -> Iterator[PretendCuda]:
    """A device with so many bytes free, until the block ends."""
    pretended = PretendCuda.now = PretendCuda()

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        before, pretended.current = pretended.current, stream
        try:
            yield
        finally:
            pretended.current = before

    monkeypatch.setattr(T, "record_stream", _record)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: pretended.current)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free, 2 * free))
    with pretended:
        yield pretended
