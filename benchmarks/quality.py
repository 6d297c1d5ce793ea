"""The quality that quantization costs: the same texts through the same model, experts and head held in fewer bits.

    python -m benchmarks.quality CHECKPOINT [--windows 8]

Perplexity is of the text's own tokens. Agreement is the share of places where the likeliest next token is the same as
with unquantized weights (bf16), KL the mean divergence of the next token's distribution from theirs, in nats. The demo
checkpoint reads text that it was not trained on; another reads random tokens, where only agreement and KL say anything.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from sentencepiece import SentencePieceProcessor

from benchmarks.report import publish
from model.attention.kv_cache import PagedKVCache
from model.attention.ragged import RaggedBatch, Segment
from model.attention.sdpa import SdpaBackend
from model.checkpoint.folder import Checkpoint
from model.checkpoint.weights import Tensors
from model.experts.loading import load_expert
from model.matrices.forms import MATRICES
from model.routing import combine, group
from model.trunk import Trunk

_WINDOW = 384
DEMO = Path(__file__).parents[1] / "model" / "demo"


class Model:
    """A checkpoint in bf16 whose experts are held as `quantization` says, and the head's matrices as `head` does."""

    def __init__(self, checkpoint: Checkpoint, quantization: str, head: str = "none") -> None:
        c = self.config = checkpoint.config
        tensors = Tensors(checkpoint, checkpoint.head_names(), torch.bfloat16)
        self._trunk = Trunk(c, tensors, MATRICES[head])
        self._experts = [load_expert(checkpoint, e, quantization, torch.bfloat16) for e in range(c.num_local_experts)]

    @property
    def nbytes(self) -> tuple[int, int]:
        """That all experts hold together, and the head."""
        return sum(expert.nbytes() for expert in self._experts), self._trunk.nbytes()

    @torch.inference_mode()
    def logits(self, token_ids: Sequence[int]) -> torch.Tensor:
        """fp32 [len(token_ids), V]."""
        count = len(token_ids)
        cache, backend = PagedKVCache(self.config, 1, count, torch.bfloat16), SdpaBackend(None, count)
        batch = RaggedBatch.build([Segment(0, count, 0, [0])], token_ids, range(count), count)
        forward = self._trunk.forward(batch, cache, backend)
        try:
            dispatch = next(forward)
            while True:
                grouping = group(dispatch.experts_TK, len(self._experts))
                parts_RD = dispatch.x_TD[grouping.tokens_R].split(grouping.counts)
                outputs = [e.forward(dispatch.layer, x) for e, x in zip(self._experts, parts_RD, strict=True)]
                dispatch = forward.send(combine(dispatch.weights_TK, grouping.rows_KT, torch.cat(outputs)))
        except StopIteration as end:
            logits: torch.Tensor = end.value
            return logits


@dataclass(frozen=True, slots=True)
class Quality:
    """See the module. `base` is the perplexity without quantization."""

    base: float
    perplexity: float
    agreement: float
    kl: float


def compare(plain: Model, quantized: Model, texts: Sequence[Sequence[int]]) -> Quality:
    """Over all places of the texts."""
    losses, own_losses, agree, kl = list[float](), list[float](), list[float](), list[float]()
    for ids in texts:
        expected, found = (model.logits(ids[:-1]).log_softmax(-1) for model in (plain, quantized))
        following = torch.tensor(list(ids[1:]))
        losses.append(F.nll_loss(expected, following).item())
        own_losses.append(F.nll_loss(found, following).item())
        agree.append((expected.argmax(-1) == found.argmax(-1)).float().mean().item())
        kl.append(F.kl_div(found, expected, log_target=True, reduction="batchmean").item())

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return Quality(math.exp(mean(losses)), math.exp(mean(own_losses)), mean(agree), mean(kl))


def texts_of(folder: Path, checkpoint: Checkpoint, windows: int) -> list[list[int]]:
    """Held-out text of each of the demo's domains, or random ids."""
    if folder == DEMO:
        from model.demo.measure import held_out

        held = held_out(SentencePieceProcessor(model_file=str(folder / "tokenizer.model")), windows)
        return [ids.tolist() for of_domain in held.values() for ids in of_domain]
    source = torch.Generator().manual_seed(0)
    shape = (windows, _WINDOW + 1)
    return [list(ids) for ids in torch.randint(3, checkpoint.config.vocab_size, shape, generator=source).tolist()]


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a folder, or demo")
    parser.add_argument("--windows", type=int, default=4, help="texts of 384 tokens, for the demo of each domain")
    arguments = parser.parse_args()
    folder = DEMO if arguments.checkpoint == "demo" else Path(arguments.checkpoint)
    checkpoint = Checkpoint.open(folder)
    texts, plain = texts_of(folder, checkpoint, arguments.windows), Model(checkpoint, "none")
    sizes = [f"{size / 1e6:.1f}" for size in plain.nbytes]
    rows = [["none", "none", *sizes, f"{compare(plain, plain, texts).base:.3f}", "", ""]]
    for quantization, head in (("int8", "none"), ("int8", "int8"), ("int4", "none"), ("int4", "int8")):
        model = Model(checkpoint, quantization, head)
        q = compare(plain, model, texts)
        sizes = [f"{size / 1e6:.1f}" for size in model.nbytes]
        rows.append([quantization, head, *sizes, f"{q.perplexity:.3f}", f"{100 * q.agreement:.2f} %", f"{q.kl:.2e}"])
    publish(
        f"quality_{folder.name}",
        f"experts.quantization and head.quantization: {folder.name}, {len(texts)} texts of {len(texts[0]) - 1} tokens",
        ("experts", "head", "experts, MB", "head, MB", "perplexity", "greedy agreement", "KL, nats"),
        rows,
    )


if __name__ == "__main__":
    main()
