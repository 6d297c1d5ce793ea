"""Text of a stream of token ids, piece by piece, never half a character."""

import codecs
from collections.abc import Mapping

from model.text.tokenizer import Tokenizer


class Detokenizer:
    """Incremental decoder of one output: `push` every id, then `flush` once. Not shared between threads. A character
    may span several ids (byte pieces); it is held back until complete. The space of the first word is kept, because an
    output continues a prompt: "My favourite condiment is" goes on with " mustard".
    """

    def __init__(
        self, tokenizer: Tokenizer, *, special_tokens: bool = False, marks: Mapping[int, str] | None = None
    ) -> None:
        """`marks` are texts that ids have here instead of their own."""
        self._tokenizer, self._special_tokens = tokenizer, special_tokens
        self._marks = {i: text.encode() for i, text in (marks or {}).items()}
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The text that is complete with this id, often ""; ValueError, without effect, for one out of range."""
        if token_id in self._marks:
            return self._decoder.decode(self._marks[token_id])
        return self._decoder.decode(self._tokenizer.token_bytes(token_id, special_tokens=self._special_tokens))

    def flush(self) -> str:
        """An incomplete character that was held back, as U+FFFD; else ""."""
        return self._decoder.decode(b"", final=True)
