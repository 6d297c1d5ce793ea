"""openai: sixteen streams that never rest, told on standard input when to end, each compared with its text of before.

The client does not try anything again. A last line of JSON says what came.
"""

import asyncio
import itertools
import json
import random
import sys
from typing import Any

from openai import AsyncOpenAI, OpenAIError

from tests.clients.checks import LEARNT

AT_ONCE, REQUESTS = 16, 24
SCHEMA = {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 4, "maxItems": 8}


def some_requests(model: str, seed: int) -> list[dict[str, Any]]:
    """Chats and completions in turn; greedy, seeded, two choices, structured."""
    rng, found = random.Random(seed), []
    for number in range(REQUESTS):
        text = f"Of wind {rng.randrange(1000)}: " + "north " * rng.choice((1, 8, 150))
        wanted = {"model": model, "max_tokens": rng.randint(48, 96), "stream": True, "seed": rng.randrange(1 << 40)}
        wanted |= {"prompt": text} if number % 2 else {"messages": [{"role": "user", "content": text}]}
        more: dict[str, Any] = {"ignore_eos": True}
        match number // 2 % 4:
            case 0:
                wanted["temperature"] = 0
            case 1:
                wanted |= {"temperature": 0.9, "top_p": 0.9}
            case 2:
                wanted["n"] = 2
            case 3:
                form = {"type": "json_schema", "json_schema": {"name": "colours", "schema": SCHEMA}}
                more = {"response_format": form}
        found.append(wanted | {"extra_body": more})
    return found


async def ask(client: AsyncOpenAI, wanted: dict[str, Any]) -> list[str]:
    """The texts of its choices, each of which must have ended."""
    texts, ended = [""] * wanted.get("n", 1), set()
    door = client.chat.completions if "messages" in wanted else client.completions
    stream: Any = await door.create(**wanted)
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += (choice.delta.content or "") if "messages" in wanted else choice.text
            if choice.finish_reason:
                ended.add(choice.index)
    if len(ended) != len(texts):
        raise OpenAIError("a stream ended before its choices did")
    return texts


async def main(target: dict[str, str]) -> None:
    """Learn, run, and tell."""
    requests, numbers, ending = some_requests(target["model"], 2026), itertools.count(), asyncio.Event()
    told: dict[str, Any] = {"done": 0, "different": 0, "failed": []}
    async with AsyncOpenAI(base_url=target["base"], api_key="none", max_retries=0, timeout=180) as client:
        expected = [await ask(client, wanted) for wanted in requests]
        print(LEARNT, flush=True)

        async def one_after_the_other() -> None:
            while not ending.is_set():
                number = next(numbers) % len(requests)
                try:
                    texts = await ask(client, requests[number])
                except Exception as error:  # an error event, a status, a connection: each is a failure
                    told["failed"].append(f"{type(error).__name__}: {error}"[:300])
                    continue
                told["done"] += 1
                told["different"] += texts != expected[number]

        streams = [asyncio.create_task(one_after_the_other()) for _ in range(AT_ONCE)]
        await asyncio.to_thread(sys.stdin.readline)
        ending.set()
        await asyncio.gather(*streams)
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
