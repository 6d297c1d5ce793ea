"""The packages that a machine with a card, but without a network, lacks: `python -m benchmarks.gpu.bundle`."""
