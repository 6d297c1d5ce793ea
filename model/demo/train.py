"""Train the demo checkpoint on one CPU thread: `python -m model.demo.train --out model/demo`.

Needs the `dev` extra (transformers, matplotlib). Writes the tokenizer, a snapshot of the weights every few
hundred steps, train_log.csv, loss.png and measurements.json.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import MixtralConfig, MixtralForCausalLM
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from model.demo import measure, relabel
from model.demo.chart import draw_losses
from model.demo.corpus import DOMAINS, documents
from model.demo.export import CONFIG, save_checkpoint
from model.demo.vocabulary import BOS, load_tokenizer, pack, train_tokenizer

BATCH: Final = 8
WARM_UP: Final = 0.03
PEAK_RATE: Final = 3e-3
LOG_EVERY: Final = 25
SNAPSHOT_EVERY: Final = 200


class Batches:
    """Windows of the packed stream in shuffled order; every domain occurs in every few of them."""

    def __init__(self, stream_T: Tensor, seed: int) -> None:
        self._stream = stream_T
        self._starts = (stream_T == BOS).nonzero().flatten()
        self._random = torch.Generator().manual_seed(seed)

    def draw(self) -> Tensor:
        """Ids [BATCH, WINDOW + 1]."""
        size = measure.WINDOW + 1
        limit = len(self._stream) - size
        begin = torch.randint(limit, (BATCH,), generator=self._random)
        # Half the windows begin with a document: at run time the first token is BOS, with nothing before it.
        documents_at = self._starts[torch.searchsorted(self._starts, begin[: BATCH // 2], right=True) - 1]
        begin[: BATCH // 2] = documents_at.clamp(max=limit)
        return torch.stack([self._stream[i : i + size] for i in begin.tolist()])


def rate(progress: float) -> float:
    """Learning rate at `progress` in 0..1: linear warm-up, then a cosine down to 1 % of the peak."""
    if progress < WARM_UP:
        return PEAK_RATE * progress / WARM_UP
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP))))
    return PEAK_RATE * (0.01 + 0.99 * cosine)


def balance(gates: tuple[Tensor, ...]) -> Tensor:
    """The load-balancing loss, layer by layer.

    transformers pools the rows of all layers before it compares loads, so one layer may starve an expert
    that another layer overloads. Here every layer has to balance for itself.
    """
    experts, top_k = CONFIG["num_local_experts"], CONFIG["num_experts_per_tok"]
    parts = [torch.as_tensor(load_balancing_loss_func((gate,), experts, top_k)) for gate in gates]
    return torch.stack(parts).mean()


def optimizer_for(model: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW; norms are not decayed."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    norms = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98), fused=True)


def train(args: argparse.Namespace, model: Any, batches: Batches, held: dict[str, Tensor]) -> dict[str, float]:
    """Run the optimisation; return {"steps", "tokens", "minutes"}."""
    optimizer = optimizer_for(model)
    log = (args.out / "train_log.csv").open("w", encoding="utf-8")
    log.write("step,tokens,train_loss,val_loss\n")
    begun, step, progress, recent = time.monotonic(), 0, 0.0, []
    while progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate(progress)
        ids = batches.draw()
        out = model(input_ids=ids[:, :-1], output_router_logits=True)
        loss = F.cross_entropy(out.logits.flatten(0, 1), ids[:, 1:].flatten())
        auxiliary = balance(out.router_logits)
        (loss + CONFIG["router_aux_loss_coef"] * auxiliary).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent.append(loss.item())
        step += 1
        minutes = (time.monotonic() - begun) / 60
        # A busy machine must not cost the end of the schedule: the further of steps and minutes decides.
        progress = max(step / args.steps, minutes / args.minutes)
        last = progress >= 1
        if step % LOG_EVERY == 0 or last:
            tokens, mean = step * BATCH * measure.WINDOW, sum(recent) / len(recent)
            value = f"{measure.losses(model, held)['all']:.4f}" if step % SNAPSHOT_EVERY == 0 or last else ""
            log.write(f"{step},{tokens},{mean:.4f},{value}\n")
            log.flush()
            print(
                f"step {step} tokens {tokens} min {minutes:.1f} rate {rate(progress):.5f} train {mean:.4f} "
                f"val {value or '-'} balance {auxiliary.item():.3f}",
                flush=True,
            )
            recent.clear()
        if step % SNAPSHOT_EVERY == 0 or last:
            save_checkpoint(model, args.out)
        if step % (4 * SNAPSHOT_EVERY) == 0:
            print(measure.share_table(measure.expert_counts(model, held)), flush=True)
    log.close()
    return {"steps": step, "tokens": step * BATCH * measure.WINDOW, "minutes": round(minutes, 1)}


def new_model(experts: str) -> Any:
    """A random model; `experts` names transformers' way of running them (here grouped_mm is the fastest)."""
    build: Any = MixtralForCausalLM._from_config
    return build(MixtralConfig(**CONFIG), experts_implementation=experts)


@torch.no_grad()
def exact_logits(model: Any, ids: Tensor) -> Tensor:
    """Logits in float64, where the order in which experts are summed cannot tip a near-tie of the gate."""
    twin = new_model("eager")
    twin.load_state_dict(model.state_dict())
    logits: Tensor = twin.double().eval()(input_ids=ids).logits
    return logits


def finish(args: argparse.Namespace, model: Any, held: dict[str, Tensor], run: dict[str, float]) -> None:
    """Relabel the experts, check that nothing else changed, and write the final files."""
    probe = torch.cat([ids[:1, :-1] for ids in held.values()])
    before = exact_logits(model, probe)
    orders = relabel.orders(measure.expert_counts(model, held))
    relabel.relabel(model, orders)
    difference = (exact_logits(model, probe) - before).abs().max().item()
    assert difference < 1e-4, f"relabelling changed the logits by {difference}"
    save_checkpoint(model, args.out)
    counts = measure.expert_counts(model, held)
    result = {
        "seed": args.seed,
        **run,
        "val_loss": measure.losses(model, held),
        "relabel_orders": orders,
        "relabel_max_logit_difference": difference,
        "domains": DOMAINS,
        "expert_counts": counts.tolist(),
    }
    (args.out / "measurements.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    draw_losses(args.out / "train_log.csv", args.out / "loss.png")
    print(json.dumps({k: v for k, v in result.items() if k != "expert_counts"}, indent=1))
    print(measure.share_table(counts), flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("model/demo"))
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--minutes", type=float, default=52.0, help="end of the schedule on a slow machine")
    parser.add_argument("--documents", type=int, default=60000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    train_tokenizer(args.out / "tokenizer.model", args.seed)
    tokenizer = load_tokenizer(args.out / "tokenizer.model")
    stream = torch.tensor(pack(tokenizer, (text for _, text in documents(args.seed, args.documents))))
    held = measure.held_out(tokenizer, windows=16)
    model = new_model("grouped_mm")
    print(f"{len(stream)} training tokens, {sum(p.numel() for p in model.parameters())} parameters", flush=True)
    run = train(args, model, Batches(stream, args.seed), held)
    finish(args, model, held, run)


if __name__ == "__main__":
    main()
