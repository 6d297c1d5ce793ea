"""The steps of `python -m benchmarks.gpu`: each module has a TITLE and `run(bench)`."""
