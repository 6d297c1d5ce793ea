"""A checkpoint's generation_config.json, which may be missing: its makers' settings of generation."""

import json
from pathlib import Path
from typing import Any

from model.checkpoint.folder import Checkpoint
from model.config import refuse_pointer


def generation_config(folder: Path) -> dict[str, Any]:
    """The file's content; ValueError if it is not valid JSON. A `top_k` of -1 becomes 0: both keep all."""
    path = folder / "generation_config.json"
    if not path.exists():
        return {}
    refuse_pointer(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from None
    if not isinstance(content, dict):
        return {}
    return content | {"top_k": 0} if content.get("top_k") == -1 else content


def eos_ids(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Ids that end an output, of config.json and generation_config.json together; ValueError if one is no id."""
    eos = generation_config(checkpoint.folder).get("eos_token_id")
    ids = {*checkpoint.config.eos_token_ids, *(eos if isinstance(eos, list) else [] if eos is None else [eos])}
    for token in ids:
        if not isinstance(token, int) or not 0 <= token < checkpoint.config.vocab_size:
            raise ValueError(
                f"{checkpoint.folder}: eos_token_id {token!r} is none of the {checkpoint.config.vocab_size} token ids"
            )
    return tuple(sorted(ids))
