"""Looks for the layer in which numbers come to be none (NaN, infinity): a trunk's generator with eyes."""

import torch

from model.device.host_link import fetch
from model.trunk import Forward


def watched(forward: Forward, place: list[str]) -> Forward:
    """The same generator; the first place where it passes something that is no finite number is appended to `place`.

    Waits for the device at every layer, so it is for when a fault has been seen.
    """
    dispatch = next(forward)
    while True:
        _look(dispatch.x_TD, f"layer {dispatch.layer}, attention or what came into it", place)
        _look(dispatch.weights_TK, f"layer {dispatch.layer}, gate", place)
        total_TD = yield dispatch
        _look(total_TD, f"layer {dispatch.layer}, experts", place)
        try:
            dispatch = forward.send(total_TD)
        except StopIteration as end:
            logits: torch.Tensor = end.value
            return logits


def _look(values: torch.Tensor, name: str, place: list[str]) -> None:
    if not place:
        (finite,) = fetch(values.isfinite().all())
        if not bool(finite):
            place.append(name)
