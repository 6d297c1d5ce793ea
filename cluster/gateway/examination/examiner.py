"""Work on a request that grows with its length. It depends on the model alone, so any process gives the same result."""

from collections.abc import Sequence
from typing import TypeVar

from google.protobuf import descriptor_pool
from google.protobuf.message import Message

from cluster.engine.generation import GenerationRequest
from cluster.engine.served_model import ServedModel
from cluster.gateway.auth import Caller
from cluster.gateway.errors import Violation, Violations, invalid
from cluster.gateway.examination.fields import has_more_fields
from cluster.gateway.lengths import MOST_BYTES
from cluster.gateway.prompts import prompt_ids
from cluster.gateway.validation import Validator
from cluster.policy.scheduling.limits import Limits
from protos.eightwinds.v1 import inference_pb2 as pb

M = TypeVar("M", bound=Message)


class Examiner:
    """Counts fields, tokenizes, detokenizes and validates. Raises ApiError for what the client has to change."""

    def __init__(self, served: ServedModel) -> None:
        self.served, self._validator = served, Validator(served)

    def too_many_fields(self, raw: bytes, kind: str, most: int) -> bool:
        return has_more_fields(raw, descriptor_pool.Default().FindMessageTypeByName(kind), most)

    def tokenize(self, request: pb.TokenizeRequest, context_length: int) -> pb.TokenizeResponse:
        found = Violations()
        ids = prompt_ids(self.served, request.prompt, found)
        found.raise_any()
        return _fitting(pb.TokenizeResponse(token_ids=ids, context_length=context_length), "prompt")

    def detokenize(self, request: pb.DetokenizeRequest) -> pb.DetokenizeResponse:
        found, ids = Violations(), list(request.token_ids)
        found.ids(ids, "token_ids", self.served.checkpoint.config.vocab_size)
        found.raise_any()
        named = [i for i in ids if i < self.served.tokenizer.vocab_size]  # ids of a padded embedding have no text
        text = self.served.tokenizer.decode(named, special_tokens=request.special_tokens)
        return _fitting(pb.DetokenizeResponse(text=text), "token_ids")

    def generations(
        self, requests: Sequence[pb.GenerateRequest], limits: Limits, caller: Caller, whole: bool
    ) -> list[GenerationRequest]:
        return [self._validator.generation(request, limits, caller, whole=whole) for request in requests]


def _fitting(response: M, path: str) -> M:
    """The response; raises ApiError if it is larger than clients take."""
    if response.ByteSize() > MOST_BYTES:
        raise invalid([Violation(path, f"makes an answer of more than {MOST_BYTES} bytes; send it in parts")])
    return response
