"""Text of a stream of token ids, piece by piece, never half a character."""

import codecs

from model.text.tokenizer import Tokenizer


class Detokenizer:
    """Incremental decoder of one output stream: `push` every id, then `flush` once.

    Their results, joined, equal `Tokenizer.decode` of all the ids with the same two options. A character may span
    several ids (byte pieces); it is held back until complete. `continuation` is true by default because a stream
    usually follows a prompt: the space of its first word is then kept. One object serves one stream and is not
    shared between threads; many may share one tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, *, continuation: bool = True, special_tokens: bool = False) -> None:
        """Start a stream; the options mean what they mean in `Tokenizer.decode`."""
        self._tokenizer = tokenizer
        self._special_tokens = special_tokens
        self._starts_text = not continuation
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Take one id and return the text that became complete with it, often "".

        Bytes that cannot become a character come out as U+FFFD, at the latest with the bytes after them.
        Errors: `ValueError` for an id outside the vocabulary, which leaves the stream as it was.
        """
        data = self._tokenizer.token_bytes(token_id, special_tokens=self._special_tokens, starts_text=self._starts_text)
        if not self._tokenizer.is_control(token_id):
            self._starts_text = False
        return self._decoder.decode(data)

    def flush(self) -> str:
        """End the stream: an incomplete character that was held back comes out as U+FFFD, else ""."""
        return self._decoder.decode(b"", final=True)
