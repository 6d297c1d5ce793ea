"""Renders a template in a limited process first, so that none harms the server (`python -m model.chat.trial`)."""

import sys

from model import trial
from model.chat.sandbox import Sandbox, TooCostly

_CPU_SECONDS = 1.0  # beyond the interpreter's own start
_MEMORY_BYTES = 256 << 20  # above what the process has when it begins
_WALL_SECONDS = 20.0
TOO_COSTLY = "its chat template takes too long, or too much memory"


def attempt(source: str) -> str:
    """Why a template cannot be used: TOO_COSTLY, or what is wrong with it; "" if it can. One that refuses the
    conversation of the trial in words of its own can.
    """
    found = trial.attempt(__name__, source, _WALL_SECONDS)
    return TOO_COSTLY if found is None else found


def main() -> None:
    source = sys.stdin.buffer.read().decode(errors="replace")
    trial.limit(_CPU_SECONDS, _MEMORY_BYTES)
    try:
        sandbox = Sandbox(source)
    except ValueError as error:
        sys.stdout.write(str(error))
        return
    messages = [{"role": "user", "content": "Hello"}]
    values = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True}
    try:
        sandbox.render(values | {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    except ValueError as error:
        if isinstance(error.__cause__, TooCostly | MemoryError):
            sys.stdout.write(TOO_COSTLY)


if __name__ == "__main__":
    main()
