"""A matrix of the model, in whatever form it is held. R: rows, E: outputs, D: inputs."""

from collections.abc import Callable

import torch

Product = Callable[[torch.Tensor], torch.Tensor]  # rows [R, D] -> rows [R, E]


class Matrix:
    """A weight [E, D]; a call gives `x @ weight.T` for rows [R, D], each row with the same bits in any batch."""

    def __init__(self, product: Product, nbytes: int) -> None:
        """`nbytes` is what it holds."""
        self._product, self.nbytes = product, nbytes

    def __call__(self, x_RD: torch.Tensor) -> torch.Tensor:
        return self._product(x_RD)


Make = Callable[[torch.Tensor], Matrix]  # of a weight that its caller lets go of
