"""Tensors between a device and the host: one transfer each way, and the host waits only where it must.

On a GPU the host's side is page-locked memory, without which a copy cannot run beside the device's work, and rows move
on a stream of their own. torch's allocator keeps page-locked blocks and gives one out again only when the copies that
use it have ended, so nothing here owns a buffer. On a CPU nothing moves.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch


class HostLink(Protocol):
    """The way of rows from a device to the host and back."""

    def download(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """These tensors on the host, all of them behind one wait."""
        ...

    def upload(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Host tensors, one below the other, on the device. The host does not wait."""
        ...


class NoLink:
    """The device is the host's own CPU, or rows are to stay on the device because their readers are there, too."""

    def download(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See `HostLink`."""
        return tensors

    def upload(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """See `HostLink`."""
        return parts[0] if len(parts) == 1 else torch.cat(tuple(parts))


class PinnedLink:
    """A CUDA device, through page-locked memory on a stream beside the one that computes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)

    def download(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See `HostLink`."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            hosts = _on_their_way(tensors)
        self._stream.synchronize()  # of the copies; what computes meanwhile goes on
        return hosts

    def upload(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """See `HostLink`."""
        rows = sum(len(part) for part in parts)
        host = torch.empty((rows, *parts[0].shape[1:]), dtype=parts[0].dtype, pin_memory=True)
        torch.cat(tuple(parts), out=host)
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            there = host.to(self._device, non_blocking=True)
        computing.wait_stream(self._stream)
        there.record_stream(computing)  # it was allocated on the other stream, which must not reuse it too early
        return there


def host_link(device: torch.device | str) -> HostLink:
    """The link of a device."""
    device = torch.device(device)
    return PinnedLink(device) if device.type == "cuda" else NoLink()


def put(values: Any, device: torch.device | str, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Numbers, nested lists of them, or a numpy array as a tensor on a device. The host does not wait."""
    tensor = torch.as_tensor(values, dtype=dtype)
    if torch.device(device).type != "cuda":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def fetch(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Small results of one device on the host, behind one wait for all that computes."""
    if not tensors or tensors[0].device.type != "cuda":
        return tensors
    hosts = _on_their_way(tensors)
    torch.cuda.current_stream(tensors[0].device).synchronize()
    return hosts


def _on_their_way(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Page-locked host tensors that the current stream is told to fill: they hold nothing until it has done so."""
    hosts = tuple(torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors)
    for host, tensor in zip(hosts, tensors, strict=True):
        host.copy_(tensor, non_blocking=True)
    return hosts
