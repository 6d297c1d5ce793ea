"""A command-line client, whose words are told where it fails."""

import os
import subprocess
import sys
from pathlib import Path


def run_command(*words: str, without: str = "", seconds: float = 500.0) -> str:
    """Run a program of this environment, `without` a variable; its output, or AssertionError with the end of it."""
    environment = {name: value for name, value in os.environ.items() if name != without}
    program = Path(sys.executable).parent / words[0]
    done = subprocess.run([str(program), *words[1:]], capture_output=True, text=True, timeout=seconds, env=environment)
    if done.returncode:
        raise AssertionError(f"exit code {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
    return done.stdout
