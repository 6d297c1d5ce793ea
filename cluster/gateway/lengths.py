"""How many tokens an output may have: as many as context, KV cache and one answer's message hold.

`asked` is the client's own number, None for as many as there is room for. Raises ApiError if there is less. gRPC
clients refuse a message above 4 MiB unless they are told otherwise, so an answer in one message that may be larger is
refused while its request is checked; a stream sends pieces that never are.
"""

from cluster.engine.served_model import ServedModel
from cluster.gateway.errors import Violation, invalid
from cluster.policy.scheduling.limits import Limits
from protos.eightwinds.v1 import inference_pb2 as pb

MOST_BYTES = 4 << 20  # what clients take, grpc's default of max_receive_message_length
PIECE_BYTES = 1 << 20  # from here on a stream begins another message
_FRAME = 4096  # bytes of everything that is there once


def context(served: ServedModel, limits: Limits) -> int:
    """The most tokens that prompt and output can have together."""
    return min(served.context_length, limits.most_tokens)


def in_context(served: ServedModel, limits: Limits, prompt: int, asked: int | None) -> int:
    """max_tokens after a prompt of so many tokens."""
    most = context(served, limits)
    if prompt + (1 if asked is None else asked) <= most:
        return most - prompt if asked is None else asked
    path = "prompt" if asked is None else "stopping.max_tokens"
    wanted = f"prompt ({prompt}) and max_tokens ({asked}) exceed"
    if most < served.context_length and asked is None:
        text = f"has {prompt} tokens, which leave none of the whole KV cache of {most} tokens (kv.memory_bytes)"
    elif most < served.context_length:
        text = f"{wanted} the whole KV cache of {most} tokens; more needs a server with more kv.memory_bytes"
    elif prompt >= most:
        path = "prompt"
        text = f"has {prompt} tokens; with at least one to put out the context holds {most}"
    else:
        text = f"{wanted} the context of {most}"
    told = {"promptTokens": str(prompt), "contextLength": str(most), "maxTokens": str(1 if asked is None else asked)}
    raise invalid([Violation(path, text)], told)


def token_bytes(longest: int, alternatives: int, token_ids: bool = False) -> int:
    """The most that a token adds to a message: its text, its id if asked for, and with `alternatives` >= 0 its
    log-probability and as many of other tokens. A piece has at most `longest` bytes, an id below 2**21 takes 3.
    """
    info = 4 + longest + 2 + 5  # id, bytes, logprob, each with what says so
    own = max(3, longest) + 5 * token_ids  # a byte that is no UTF-8 becomes three
    return own if alternatives < 0 else own + 4 + info + alternatives * (3 + info)


def in_message(longest: int, output: pb.OutputOptions, prompt: int, n: int, max_tokens: int, asked: int | None) -> int:
    """max_tokens for an answer of `n` outputs in one message, `max_tokens` at most."""
    scored = output.HasField("prompt_logprobs")
    prompt_bytes = prompt * token_bytes(longest, output.prompt_logprobs) if scored else 0
    each = token_bytes(longest, output.logprobs if output.HasField("logprobs") else -1, output.token_ids)
    most = (MOST_BYTES - _FRAME - prompt_bytes) // (n * each)
    if max_tokens <= most or (most >= 1 and asked is None):
        return min(max_tokens, most)
    path = "stopping.max_tokens" if most >= 1 else "output.prompt_logprobs" if prompt_bytes else "n"
    fits = f"{most} fit" if most >= 1 else "it does not fit"
    text = f"of one answer of {MOST_BYTES} bytes {fits}; lower it, n or output.logprobs, or use GenerateStream"
    raise invalid([Violation(path, text)])
