"""vLLM's own server on a CPU, asked over HTTP with streams as its users ask it: works in, seconds and TTFT out."""

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import aiohttp  # type: ignore[import-not-found]  # of the environment of vLLM


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str) -> None:
    while server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    raise SystemExit(f"the server ended with {server.returncode}")


async def _stream(session: aiohttp.ClientSession, body: dict[str, Any], ids: list[int]) -> float:
    """Seconds to the first token. An output that is too short ends the benchmark."""
    began, first, count = time.perf_counter(), 0.0, 0
    async with session.post("/v1/completions", json=body | {"prompt": ids}) as response:
        response.raise_for_status()
        async for line in response.content:
            if line.startswith(b"data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    first = first or time.perf_counter() - began
                    count += len(choice["token_ids"] or ())
    if count != body["max_tokens"]:
        raise SystemExit(f"{count} tokens instead of {body['max_tokens']}")
    return first


async def _ask(url: str, body: dict[str, Any], prompts: list[list[int]]) -> tuple[float, float]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, connector=connector, timeout=aiohttp.ClientTimeout(None)) as session:
        began = time.perf_counter()
        firsts = await asyncio.gather(*(_stream(session, body, ids) for ids in prompts))
        return time.perf_counter() - began, statistics.median(firsts)


def main() -> None:
    """Serve until standard input ends."""
    checkpoint, threads, port = sys.argv[1], int(sys.argv[2]), _free_port()
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}"}
    os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", checkpoint]
    command += ["--skip-tokenizer-init", "--dtype", "bfloat16", "--max-model-len", "2048", "--max-num-seqs", "128"]
    command += ["--no-enable-prefix-caching", "--host", "127.0.0.1", "--port", str(port)]
    server, url = subprocess.Popen(command, stdout=subprocess.DEVNULL), f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(server, url)
        print("eightwinds: ready", flush=True)
        for line in sys.stdin:
            work = json.loads(line)
            body = {"model": checkpoint, "max_tokens": work["tokens"], "temperature": 0, "ignore_eos": True}
            body |= {"stream": True, "return_token_ids": True, "detokenize": False}
            seconds, ttft = asyncio.run(_ask(url, body, work["prompts"]))
            print(f"eightwinds: {seconds} {ttft}", flush=True)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
