"""Errors that end one measurement but not the others, and how a table's cell names them."""

import torch

# Kernels that have never run on this card, in a version of a library that nobody has tried, fail in all these ways.
# A timeout is not among them: it ends the step.
MISHAPS = (RuntimeError, TypeError, ValueError, AttributeError, ImportError, AssertionError, IndexError)


def reason(error: BaseException) -> str:
    """A cell: `out of memory`, or the kind of the error and the beginning of its first line."""
    if isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in str(error):
        return "out of memory"
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:120]}"
