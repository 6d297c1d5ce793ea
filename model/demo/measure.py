"""Measure the demo checkpoint on held-out text: loss per domain, and which experts each domain uses."""

from collections import defaultdict
from typing import Final

import sentencepiece
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.demo.corpus import DOMAINS, documents
from model.demo.vocabulary import pack

HELD_OUT_SEED: Final = 424242
WINDOW: Final = 384


def held_out(tokenizer: sentencepiece.SentencePieceProcessor, windows: int) -> dict[str, Tensor]:
    """Per domain, `windows` disjoint windows of held-out text: ids [windows, WINDOW + 1]."""
    texts: dict[str, list[str]] = defaultdict(list)
    for domain, text in documents(HELD_OUT_SEED, 40 * windows):
        texts[domain].append(text)
    result = {}
    for domain in DOMAINS:
        ids = torch.tensor(pack(tokenizer, texts[domain]))
        assert len(ids) > windows * WINDOW, f"too little held-out text for {domain}"
        result[domain] = torch.stack([ids[i * WINDOW : (i + 1) * WINDOW + 1] for i in range(windows)])
    return result


@torch.no_grad()
def losses(model: nn.Module, held: dict[str, Tensor]) -> dict[str, float]:
    """Mean cross-entropy in nats per token of every domain, and under "all" their mean."""
    model.eval()
    result = {}
    for domain, ids in held.items():
        logits = model(input_ids=ids[:, :-1]).logits
        result[domain] = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item()
    result["all"] = sum(result.values()) / len(result)
    model.train()
    return result


@torch.no_grad()
def expert_counts(model: nn.Module, held: dict[str, Tensor], experts: int = 8, top_k: int = 2) -> Tensor:
    """Rows that each expert gets: counts [layers, domains, experts] over the held-out windows."""
    model.eval()
    counts = []
    for ids in held.values():
        gates = model(input_ids=ids[:, :-1], output_router_logits=True).router_logits
        chosen = [gate.topk(top_k).indices.flatten() for gate in gates]
        counts.append(torch.stack([layer.bincount(minlength=experts) for layer in chosen]))
    model.train()
    return torch.stack(counts, dim=1)


def share_table(counts: Tensor, domains: tuple[str, ...] = DOMAINS) -> str:
    """A Markdown table: the percentage of a domain's rows that each expert id gets, all layers together."""
    totals = counts.sum(0).double()
    shares = 100 * totals / totals.sum(1, keepdim=True)
    lines = [
        "| domain | " + " | ".join(f"id {e}" for e in range(shares.shape[1])) + " |",
        "| --- |" + " ---: |" * shares.shape[1],
    ]
    for domain, row in zip(domains, shares.tolist(), strict=True):
        best = max(row)
        cells = (f"**{value:.1f}**" if value == best else f"{value:.1f}" for value in row)
        lines.append(f"| {domain} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
