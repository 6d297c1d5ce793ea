"""A checkpoint with two experts: a server on it starts three processes instead of nine, in half the time."""

import shutil
from pathlib import Path
from typing import Any

from cluster.engine.served_model import DEMO_FOLDER
from tests.checkpoints import tiny, write

EXPERTS = 2
ACTORS = EXPERTS + 1


def write_small(folder: Path, **changes: Any) -> Path:
    """Random numbers with the demo's vocabulary; `changes` are those of its config.json."""
    usual = {"vocab_size": 2048, "num_local_experts": EXPERTS, "max_position_embeddings": 4096, "eos_token_id": 2}
    content = tiny(**usual | changes)
    shutil.copy(DEMO_FOLDER / "tokenizer.model", write(folder, content) / "tokenizer.model")
    return folder
