"""How many tokens an output may have: as many as context, KV cache and one answer's message hold.

`asked` is the client's own number, None for as many as there is room for. Raises ApiError if there is less.
"""

from cluster.engine.answer_size import MOST_BYTES, AnswerSize
from cluster.engine.served_model import ServedModel
from cluster.gateway.errors import Violation, invalid
from cluster.policy.scheduling.limits import Limits
from protos.eightwinds.v1 import inference_pb2 as pb


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
    raise invalid([Violation(path, text)], {"promptTokens": str(prompt), "contextLength": str(most)})


def in_message(
    size: AnswerSize, output: pb.OutputOptions, prompt: int, n: int, max_tokens: int, asked: int | None
) -> int:
    """max_tokens for an answer of `n` outputs in one message, `max_tokens` at most."""
    prompt_bytes = 0
    if output.HasField("prompt_logprobs"):
        prompt_bytes = prompt * size.token(output.prompt_logprobs)
    each = size.token(output.logprobs if output.HasField("logprobs") else -1, output.token_ids)
    most = size.fitting(n, prompt_bytes, each)
    if max_tokens <= most or (most >= 1 and asked is None):
        return min(max_tokens, most)
    path = "stopping.max_tokens" if most >= 1 else "output.prompt_logprobs" if prompt_bytes else "n"
    fits = f"{most} fit" if most >= 1 else "it does not fit"
    text = f"of one answer of {MOST_BYTES} bytes {fits}; lower it, n or output.logprobs, or use GenerateStream"
    raise invalid([Violation(path, text)])
