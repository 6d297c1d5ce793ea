"""Machines, links, and who sits where. Seconds, bytes and operations."""

import math
from dataclasses import dataclass

from model.config import MixtralConfig

_MATRICES = 3  # w1, w2 and w3 of an expert
_BF16 = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """A model by the sizes that time depends on. `number` is how many bytes a weight of an expert takes."""

    config: MixtralConfig
    number: float = _BF16

    @property
    def expert_numbers(self) -> int:
        """Weights of one expert in one layer."""
        return _MATRICES * self.config.hidden_size * self.config.intermediate_size

    @property
    def attention_numbers(self) -> int:
        """Weights of one layer's attention."""
        config = self.config
        heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
        return config.hidden_size * config.head_dim * heads

    @property
    def row(self) -> int:
        """Bytes of a token between head and expert."""
        return self.config.hidden_size * _BF16

    @property
    def key(self) -> int:
        """Bytes of a token in one layer of the KV cache."""
        return self.config.kv_token_bytes(_BF16) // self.config.num_hidden_layers


@dataclass(frozen=True, slots=True)
class Machine:
    """A GPU, or the cores of a host that experts share: `lanes` calls at once, each with these rates."""

    name: str
    reads: float  # bytes a second
    computes: float  # operations a second
    call: float = 0.0  # seconds of a call besides reading and computing
    lanes: int = 1

    def seconds(self, nbytes: float, operations: float) -> float:
        """Reading and computing one after the other: as a CPU is measured to do, and at most twice what a GPU takes."""
        return self.call + nbytes / self.reads + operations / self.computes


@dataclass(frozen=True, slots=True)
class Link:
    """Between the head's host and the others: bytes a second each way, and seconds until a byte is there."""

    rate: float = math.inf
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class HeadCosts:
    """Seconds of a head: of a step, of each of its sequences; in each layer of the layer, a token, a key that attention
    reads, a call to an expert (there and back), and a byte of rows there and back (gathered, sent, received, added up).
    """

    step: float
    sequence: float
    layer: float
    token: float
    key: float = 0.0
    call: float = 0.0
    byte: float = 0.0


@dataclass(frozen=True, slots=True)
class Seat:
    """A machine, and the experts whose replicas are there; `away`: behind the link."""

    machine: Machine
    experts: tuple[int, ...]
    away: bool = True


@dataclass(frozen=True, slots=True)
class Layout:
    """A cluster. Each of several heads has requests of its own; they share the experts."""

    head: HeadCosts
    seats: tuple[Seat, ...]
    link: Link = Link()
    heads: int = 1
