"""Everything that a GPU must show, in one command: `python -m benchmarks.gpu --out FOLDER --minutes 9`."""
