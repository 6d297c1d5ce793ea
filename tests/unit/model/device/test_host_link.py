"""Rows from several places as one tensor."""

import weakref

import torch

from model.device.host_link import emptied, joined


def test_parts_stand_below_each_other_in_their_order() -> None:
    for sizes in ((3,), (2, 5), (0, 1, 4)):
        parts = [torch.randn(size, 7) for size in sizes]
        whole = torch.cat(parts)
        assert torch.equal(joined(parts), whole) and torch.equal(emptied(list(parts)), whole)


def test_what_is_emptied_goes_part_by_part() -> None:
    """F16 of docs/clients.md: two micro-batches' logits must not be there twice."""
    parts = [torch.ones(2, 3), torch.ones(1, 3)]
    seen = [weakref.ref(part) for part in parts]
    assert emptied(parts).shape == (3, 3)
    assert parts == [] and [ref() for ref in seen] == [None, None]
