"""The forms in which a process can hold its matrices."""

from collections.abc import Mapping

from model.matrices.int4 import int4_matrix
from model.matrices.int8 import int8_matrix
from model.matrices.matrix import Make

# By the name that the configuration has for it; None is the dtype's own.
MATRICES: Mapping[str, Make | None] = {"none": None, "int8": int8_matrix, "int4": int4_matrix}
