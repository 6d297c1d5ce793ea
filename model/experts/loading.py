"""Makes an expert of stored tensors, in the form in which its matrices are to be held."""

from collections.abc import Callable, Mapping

import torch

from model.checkpoint.folder import Checkpoint
from model.checkpoint.weights import Tensors
from model.experts.dense import ExpertWeights
from model.grouped import Grouped
from model.matrices.forms import MATRICES
from model.matrices.int4 import int4_matrix
from model.matrices.matrix import Make, Matrix
from model.matrices.packed import Packer


def load_expert(
    checkpoint: Checkpoint,
    expert: int,
    form: str,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] = lambda nbytes: None,
) -> ExpertWeights:
    """Read an expert's tensors one at a time. Integers that are stored in 4 bits stay what they are in that form, and
    become numbers of `dtype` for any other.
    """
    tensors = Tensors(checkpoint, checkpoint.expert_names(expert), dtype, device, progress)
    layers = checkpoint.config.num_hidden_layers
    if form != "int4":
        return expert_of(expert, layers, tensors, MATRICES[form])

    def matrix(*names: str) -> Matrix:
        return int4_matrix(Grouped.stacked([tensors.grouped(name) for name in names]))

    return ExpertWeights(expert, layers, matrix)


def expert_of(expert: int, layers: int, tensors: Mapping[str, torch.Tensor], make: Make | None = None) -> ExpertWeights:
    """Of tensors by their HF names; `make` holds a matrix in another form than the machine's fastest."""
    make = make or Packer().matrix
    return ExpertWeights(expert, layers, lambda *names: make(_stacked(tensors, *names)))


def _stacked(tensors: Mapping[str, torch.Tensor], *names: str) -> torch.Tensor:
    """Matrices of one shape, one below the other; no two of them are held beside the result."""
    whole_ED = torch.empty(0)
    for i, name in enumerate(names):
        part_ID = tensors[name]
        if not i:
            whole_ED = part_ID.new_empty(len(names) * len(part_ID), part_ID.shape[1])
        whole_ED[i * len(part_ID) : (i + 1) * len(part_ID)] = part_ID
    return whole_ED
