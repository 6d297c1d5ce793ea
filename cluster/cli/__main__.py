"""`python -m cluster.cli` is the console script `eightwinds`."""

from cluster.cli.app import app

if __name__ == "__main__":
    app()
