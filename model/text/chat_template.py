"""Whether a checkpoint's folder asks for another chat template than Mixtral's first, the only one that is rendered."""

import re
from pathlib import Path
from typing import Any

from model.config import read_json

# Marks that other templates put between turns, as string literals.
_OTHER_MARKS = re.compile(r"<\||\|>|<<SYS>>|###|\[(?!/?INST\])[A-Z_]+\]|USER:|ASSISTANT:|<start_of_turn>")


def chat_refusal(folder: Path, vocab_size: int) -> str:
    """The reason why conversations cannot be served from this folder, or ""; ValueError if a file is no valid JSON.
    `vocab_size`: pieces of tokenizer.model; a token beyond them was added afterwards.
    """
    settings = _object(folder / "tokenizer_config.json")
    named = [(i, name) for name, i in _object(folder / "added_tokens.json").items()]
    listed = settings.get("added_tokens_decoder")
    for i, token in (listed if isinstance(listed, dict) else {}).items():
        if i.isdigit():
            named.append((int(i), str(token.get("content", i)) if isinstance(token, dict) else i))
    if added := {name for i, name in named if isinstance(i, int) and i >= vocab_size}:
        some = ", ".join(sorted(added)[:3])
        return f"has tokens that were added to its vocabulary ({some}), which are not read yet"
    template = _template(folder, settings)
    if template and ("[INST]" not in template or "[/INST]" not in template or _OTHER_MARKS.search(template)):
        return "has another chat template than Mixtral's first, and no other is read yet"
    return ""


def _template(folder: Path, settings: dict[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8", errors="replace")
    found = settings.get("chat_template")
    if isinstance(found, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else ""


def _object(file: Path) -> dict[str, Any]:
    content = read_json(file) if file.exists() else {}
    return content if isinstance(content, dict) else {}
