"""vLLM's CPU build, asked by `benchmarks.peers` in an environment of its own: works in, seconds out."""

import json
import os
import sys
import time


def main() -> None:
    """Serve until standard input ends."""
    checkpoint, threads = sys.argv[1], int(sys.argv[2])
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}"}
    os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]  # after its settings

    model = LLM(
        checkpoint,
        skip_tokenizer_init=True,
        dtype="bfloat16",
        max_model_len=2048,
        max_num_seqs=128,
        enable_prefix_caching=False,
    )

    def generate(prompts: list[list[int]], tokens: int) -> None:
        sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
        model.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)

    print("eightwinds: ready", flush=True)
    for line in sys.stdin:
        work = json.loads(line)
        started = time.perf_counter()
        generate(work["prompts"], work["tokens"])
        print(f"eightwinds: {time.perf_counter() - started}", flush=True)


if __name__ == "__main__":  # vLLM starts processes that import this file
    main()
