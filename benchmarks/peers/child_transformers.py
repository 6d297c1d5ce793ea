"""HF transformers with static batches, asked by `benchmarks.peers`: works in, seconds out."""

import json
import sys
import time

import torch
from transformers import MixtralForCausalLM


@torch.inference_mode()
def main() -> None:
    """Serve until standard input ends."""
    torch.set_num_threads(int(sys.argv[2]))
    model = MixtralForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16).eval()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    print("eightwinds: ready", flush=True)
    for line in sys.stdin:
        work = json.loads(line)
        ids = torch.tensor(work["prompts"])
        started = time.perf_counter()
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=work["tokens"], do_sample=False)
        print(f"eightwinds: {time.perf_counter() - started}", flush=True)


if __name__ == "__main__":
    main()
