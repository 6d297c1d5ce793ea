"""How large an answer can become. gRPC clients refuse a message above 4 MiB unless they are told otherwise. An answer
in one message that may be larger is refused while its request is checked; a stream sends pieces that never are.
"""

from dataclasses import dataclass

MOST_BYTES = 4 << 20  # what clients take, grpc's default of max_receive_message_length
PIECE_BYTES = 1 << 20  # from here on a stream begins another message
_FRAME = 4096  # everything that is there once


@dataclass(frozen=True, slots=True)
class AnswerSize:
    """Bounds in bytes for a vocabulary whose longest piece has `longest` bytes."""

    longest: int

    def token(self, alternatives: int, token_ids: bool = False) -> int:
        """The most that a token adds: its text, its id if asked for, and with `alternatives` >= 0 its log-probability
        and as many of other tokens. Ids are below 2**21, so that they take 3 bytes.
        """
        info = 4 + self.longest + 2 + 5  # id, bytes, logprob, each with what says so
        own = max(3, self.longest) + 5 * token_ids  # a byte that is no UTF-8 becomes three
        return own if alternatives < 0 else own + 4 + info + alternatives * (3 + info)

    def fitting(self, outputs: int, prompt_bytes: int, each: int) -> int:
        """How many tokens of `each` bytes fit into every output of one answer; 0 or less: none."""
        return (MOST_BYTES - _FRAME - prompt_bytes) // (outputs * each)
