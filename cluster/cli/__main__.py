"""`python -m cluster.cli` is the console script `eightwinds`."""

from cluster.cli.app import main

if __name__ == "__main__":
    main()
