"""`make demo`: serve the shipped checkpoint with eight expert processes, ask it three prompts, show who worked.

python -m examples.demo [--runtime in_process]
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from cluster.client.client import Client
from cluster.client.messages import text_request
from cluster.settings.request_options import Options
from protos.eightwinds.v1 import inference_pb2 as pb

PROMPTS = ("My favourite condiment is", "Once upon a time there was a brave mouse", "What is 37 + 48?")
MAX_TOKENS = 60


def main(arguments: Sequence[str]) -> int:
    """Run the demo; the exit code is the server's, or 1 if it never became ready."""
    settings = [f"runtime={arguments[1]}"] if arguments[:1] == ["--runtime"] else []
    command = [sys.executable, "-m", "cluster.cli", "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    command += [part for setting in settings for part in ("--set", setting)]
    print("$ eightwinds serve --model demo", flush=True)
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = _wait_until_ready(server)
        if address is None:
            print("the server did not become ready; see its messages above", file=sys.stderr)
            return server.wait() or 1
        with Client(address) as client:
            traces = [_ask(client, prompt) for prompt in PROMPTS]
        _print_loads(traces)
    finally:
        if server.poll() is None:
            server.terminate()
        code = server.wait()
    print(f"server ended with exit code {code}")
    return code


def _wait_until_ready(server: "subprocess.Popen[str]") -> str | None:
    assert server.stdout is not None
    for line in server.stdout:
        print(line, end="", flush=True)
        if line.startswith("ready "):
            threading.Thread(target=server.stdout.read, daemon=True).start()
            return dict(part.split("=", 1) for part in line.split()[1:])["grpc"]
    return None


def _ask(client: Client, prompt: str) -> pb.Trace:
    request = text_request(prompt, Options(max_tokens=MAX_TOKENS, temperature=0.0))
    request.output.trace = True
    print(f"\n> {prompt}", end="", flush=True)
    trace, tokens, started = pb.Trace(), 0, time.perf_counter()
    for message in client.stream(request):
        print(message.text, end="", flush=True)
        if message.HasField("usage"):
            tokens = message.usage.completion_tokens
            trace.CopyFrom(message.trace)
    took = time.perf_counter() - started
    first = trace.time_to_first_token.ToMilliseconds()
    per_token = (took * 1000 - first) / max(1, tokens - 1)
    print(f"\n  [{tokens} tokens, first after {first} ms, then {per_token:.1f} ms per token]")
    return trace


def _print_loads(traces: Sequence[pb.Trace]) -> None:
    print("\nTokens per layer and expert, over the three requests:")
    for line in load_table([[list(row.expert_tokens) for row in trace.routing] for trace in traces]):
        print(line)


def load_table(routings: Sequence[Sequence[Sequence[int]]]) -> Iterator[str]:
    """Lines of a table layer x expert, summed over requests."""
    layers = [[sum(counts) for counts in zip(*rows, strict=True)] for rows in zip(*routings, strict=True)]
    yield "layer " + "".join(f"{f'e{e}':>7}" for e in range(len(layers[0])))
    for i, row in enumerate(layers):
        yield f"{i:5} " + "".join(f"{count:7}" for count in row)
    yield "  all " + "".join(f"{sum(column):7}" for column in zip(*layers, strict=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
