"""Finds the layer in which a number first becomes NaN or infinity, by looking at what a trunk yields and is sent."""

import torch

from model.device.host_link import fetch
from model.trunk import Forward


def watched(forward: Forward, place: list[str]) -> Forward:
    """The same generator, which also appends to `place` the first place where a number is not finite.

    It waits for the device at every layer, so it only runs after a fault has been seen.
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
