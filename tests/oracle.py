"""What transformers puts out for the demo checkpoint, in fp32: the specification."""

from pathlib import Path
from typing import Any

import torch
from transformers import MixtralForCausalLM


class Oracle:
    """A checkpoint in transformers."""

    def __init__(self, folder: Path) -> None:
        self._model: Any = MixtralForCausalLM.from_pretrained(folder, dtype=torch.float32)

    @torch.inference_mode()
    def greedy(self, ids: list[int], count: int, *, ignore_eos: bool = False) -> list[int]:
        """The ids that it appends greedily, at most `count`."""
        eos = {"eos_token_id": None} if ignore_eos else {}
        mask = torch.ones(1, len(ids), dtype=torch.int64)
        settings = {"attention_mask": mask, "max_new_tokens": count, "do_sample": False} | eos
        text: list[int] = self._model.generate(torch.tensor([ids]), **settings)[0].tolist()
        return text[len(ids) :]

    @torch.inference_mode()
    def logprobs(self, ids: list[int]) -> torch.Tensor:
        """Log-softmax of the logits at each position of a text, [T, V]: row t is what it says of token t + 1."""
        logits: torch.Tensor = self._model(torch.tensor([ids])).logits[0]
        return logits.double().log_softmax(-1)
