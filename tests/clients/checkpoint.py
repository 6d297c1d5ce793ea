"""The checkpoint that clients talk to: random numbers, Mixtral's own vocabulary, and a template that has tools."""

import json
import shutil
from pathlib import Path
from typing import Any

import sentencepiece

from benchmarks.mid import mistral_tokenizer
from tests.checkpoints import tiny, write
from tests.text_folders import HERMES

CONTEXT = 2048  # what lm-eval takes for granted
NAME = "tiny-instruct"


def write_checkpoint(folder: Path) -> Path:
    """Write it to a folder of its name."""
    content = tiny(vocab_size=32000, max_position_embeddings=CONTEXT, bos_token_id=1, eos_token_id=2)
    written = write(folder / NAME, content)
    shutil.copy(mistral_tokenizer(), written / "tokenizer.model")
    (written / "chat_template.jinja").write_text(HERMES)
    return written


def write_tokenizer(folder: Path) -> Path:
    """The same vocabulary as Hugging Face's tokenizers read it, for programs that make up prompts of a length."""
    pieces = sentencepiece.SentencePieceProcessor(str(mistral_tokenizer()))
    ids = {pieces.id_to_piece(i): i for i in range(pieces.vocab_size())}
    pairs = [
        (number, ids[piece[:cut]], ids[piece[cut:]], f"{piece[:cut]} {piece[cut:]}")
        for piece, number in ids.items()
        if pieces.is_unknown(number) is False and not pieces.is_control(number) and not pieces.is_byte(number)
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    model: dict[str, Any] = {"type": "BPE", "vocab": ids, "merges": [text for *_, text in sorted(pairs)]}
    model |= {"unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True}
    spaces = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    back = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}]
    back += [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    control: dict[str, Any] = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    whole = {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": pieces.id_to_piece(i)} | control for i in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": spaces},
        "decoder": {"type": "Sequence", "decoders": back},
        "model": model,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    settings: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT}
    settings |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
