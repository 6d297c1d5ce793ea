"""Changes to single scores before sampling: penalties, bias and bans, for all rows of a batch at once.

Few scores of a row change, so they are gathered, changed and put back; no [B, V] table is kept beside the logits.
B: rows, V: vocabulary, N: changed scores of all rows.
"""

from array import array
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from model.batch import SamplingParams
from model.device.host_link import put


class Occurrences:
    """Ids that occur in a sequence, and how often each occurs in its output."""

    def __init__(self, token_ids: Sequence[int], prompt_length: int) -> None:
        self._place: dict[int, int] = {}
        self.ids, self.counts = array("q"), array("q")  # side by side; an id of the prompt alone counts 0
        for token_id in token_ids[:prompt_length]:
            self._find(token_id)
        for token_id in token_ids[prompt_length:]:
            self.push(token_id)

    def push(self, token_id: int) -> None:
        self.counts[self._find(token_id)] += 1

    def _find(self, token_id: int) -> int:
        place = self._place.setdefault(token_id, len(self.ids))
        if place == len(self.ids):
            self.ids.append(token_id)
            self.counts.append(0)
        return place


def penalised(params: SamplingParams) -> bool:
    return (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) != (1, 0, 0)


def penalise(scores_BV: torch.Tensor, rows: Sequence[tuple[int, SamplingParams, Occurrences]]) -> None:
    """Apply the penalties of these rows (index, parameters, occurrences) in place: repetition over prompt and output
    (HF RepetitionPenaltyLogitsProcessor), presence and frequency over the output alone (OpenAI's formula).
    """
    if not rows:
        return
    device, lengths = scores_BV.device, [len(seen.ids) for _, _, seen in rows]
    row_N = _repeated([b for b, _, _ in rows], lengths, device)
    id_N, count_N = (
        put(np.concatenate([np.frombuffer(column, np.int64) for column in columns]), device)
        for columns in zip(*((seen.ids, seen.counts) for _, _, seen in rows), strict=True)
    )
    penalties = ((p.repetition_penalty, p.presence_penalty, p.frequency_penalty) for _, p, _ in rows)
    repetition_N, presence_N, frequency_N = (
        _repeated(values, lengths, device).to(scores_BV.dtype) for values in zip(*penalties, strict=True)
    )
    score_N = scores_BV[row_N, id_N]
    score_N = torch.where(score_N < 0, score_N * repetition_N, score_N / repetition_N)
    scores_BV[row_N, id_N] = score_N - (count_N * frequency_N + (count_N > 0) * presence_N)


def bias(scores_BV: torch.Tensor, rows: Iterable[tuple[int, SamplingParams]]) -> None:
    """Add each row's `logit_bias` in place."""
    named = [(b, token_id, value) for b, p in rows for token_id, value in p.logit_bias]
    if named:
        row_N, id_N, value_N = (put(column, scores_BV.device) for column in zip(*named, strict=True))
        scores_BV[row_N, id_N] += value_N.to(scores_BV.dtype)


def ban(scores_BV: torch.Tensor, rows: Iterable[tuple[int, Sequence[int]]]) -> None:
    """Rule out the ids of each row in place."""
    named = [(b, token_id) for b, ids in rows for token_id in ids]
    if named:
        row_N, id_N = (put(column, scores_BV.device) for column in zip(*named, strict=True))
        scores_BV[row_N, id_N] = float("-inf")


def _repeated(values: Sequence[float], lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    return put(np.repeat(np.asarray(values), lengths), device)
