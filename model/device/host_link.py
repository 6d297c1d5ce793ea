"""Tensors between a device and the host: one transfer each way, and the host waits only where it must.

On a GPU the host's side is page-locked memory, because only then can a copy run beside the device's work, and rows move
on a stream of their own. Nothing here owns a buffer, because torch's allocator reuses a page-locked block only when the
copies that use it have ended. On a CPU nothing moves.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch


def joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors one below the other; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts))


def emptied(parts: list[torch.Tensor]) -> torch.Tensor:
    """The same of large ones: they are taken out of the list, and each goes as soon as it is copied."""
    if len(parts) == 1:
        return parts.pop()
    whole = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
    end = 0
    while parts:
        part = parts.pop(0)
        begin, end = end, end + len(part)
        whole[begin:end] = part
    return whole


class HostLink(Protocol):
    """The way of rows from a device to the host and back."""

    def download(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Copy these tensors to the host, all of them behind one wait."""

    def upload(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Copy host tensors, one below the other, to the device. The host does not wait."""


class NoLink:
    """No transfer: the device is the host's own CPU, or rows stay on the device because their readers are there."""

    def download(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tensors

    def upload(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        return joined(parts)


class PinnedLink:
    """Transfers of a CUDA device, through page-locked memory on a stream beside the computing one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)

    def download(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            hosts = _on_their_way(tensors)
        self._stream.synchronize()  # of the copies only: the computing stream goes on
        return hosts

    def upload(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        rows = sum(len(part) for part in parts)
        host = torch.empty((rows, *parts[0].shape[1:]), dtype=parts[0].dtype, pin_memory=True)
        torch.cat(tuple(parts), out=host)
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            there = host.to(self._device, non_blocking=True)
        computing.wait_stream(self._stream)
        there.record_stream(computing)  # the copy stream allocated it and must not reuse it too early
        return there


def host_link(device: torch.device | str) -> HostLink:
    device = torch.device(device)
    return PinnedLink(device) if device.type == "cuda" else NoLink()


def put(values: Any, device: torch.device | str, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Make a tensor on a device of numbers, nested lists of them, or a numpy array. The host does not wait."""
    tensor = torch.as_tensor(values, dtype=dtype)
    if torch.device(device).type != "cuda":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def fetch(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Copy small results of one device to the host, behind one wait for its computing stream."""
    if not tensors or tensors[0].device.type != "cuda":
        return tensors
    hosts = _on_their_way(tensors)
    torch.cuda.current_stream(tensors[0].device).synchronize()
    return hosts


def _on_their_way(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Page-locked host tensors that the current stream will fill; they hold nothing before that."""
    hosts = tuple(torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors)
    for host, tensor in zip(hosts, tensors, strict=True):
        host.copy_(tensor, non_blocking=True)
    return hosts
