"""The clients: what each needs installed, and its scripts."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Client:
    """`requirements` are pip's words, in their order; none: it runs in the environment of the suite. `scripts` are
    modules of the room `scripts`. What is `unwanted` is taken out again. A `heavy` one runs if it is named only.
    """

    requirements: tuple[str, ...]
    scripts: tuple[str, ...]
    short: bool = False
    seconds: float = 300.0
    oracle: bool = False  # it is held to what transformers say
    unwanted: tuple[str, ...] = ()
    heavy: bool = False


# The build of torch that the project has, before anything asks for the newest, which may bring a card's libraries.
_PINS = (Path(__file__).resolve().parents[2] / "constraints.txt").read_text().splitlines()
_TORCH = next(line for line in _PINS if line.startswith("torch=="))

CLIENTS = {
    "sockets": Client((), ("sockets",), short=True),
    "openai": Client(
        ("openai>=2,<4",),
        ("openai_answers", "openai_streams", "openai_failures", "openai_tools", "openai_responses"),
        short=True,
    ),
    "anthropic": Client(("anthropic>=0.50,<3",), ("anthropic_messages",)),
    "langchain": Client(("langchain-openai>=1.0,<2",), ("langchain_chat",)),
    "llama-index": Client(("llama-index-llms-openai-like>=0.5,<1",), ("llama_index_like",)),
    "litellm": Client(("litellm>=1.80,<2",), ("litellm_calls",)),
    "lm-eval": Client(("lm-eval[api]>=0.4.9,<0.5",), ("lm_eval_scores",), seconds=900.0, oracle=True),
    "inspect": Client(("inspect-ai>=0.3.150,<0.4", "openai>=2,<4"), ("inspect_task",)),
    "guidellm": Client((_TORCH, "guidellm>=0.5,<1"), ("guidellm_run",), seconds=600.0),
    "aiperf": Client(("aiperf>=0.3,<1",), ("aiperf_run",), seconds=600.0),
    # 6 GB. Beside a torch without CUDA what it brings for pictures and sound cannot be imported.
    "vllm": Client(
        (_TORCH, "vllm==0.32.0"),
        ("vllm_bench",),
        seconds=600.0,
        unwanted=("torchvision", "torchaudio", "torchcodec"),
        heavy=True,
    ),
}
