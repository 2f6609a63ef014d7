"""The endpoint client and the openai SDK against a server with a concurrency limit: calls per second, and calls paid twice.

python -m benchmarks.endpoint

2,000 calls; the server (tests/fault_server.py, its own process) accepts 40 at once and answers after 50 to 100 ms, with and
without faults in a fifth of the calls. The SDK knows the limit (a semaphore of 40); the endpoint adapts to it (concurrency 64).
Mean concurrency is measured by the server until every prompt has been sent once. "Paid twice" counts prompts that were sent
again after the server had answered them or had begun to.
"""

import asyncio
import os
import time

from openai import AsyncOpenAI, OpenAIError

from tests.fault_server import FAULTS, KEY, Handle, start
from valueflow.llm.admission import BudgetLedger
from valueflow.llm.configs import EndpointModel
from valueflow.llm.endpoint import Endpoint
from valueflow.llm.question import Question

CALLS, LIMIT, TIMEOUT = 2000, 40, 2.0
CHOICE = {"choice": ["A > B > C", "C > B > A"]}


def chat(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"question {number}"}]


async def endpoint(server: Handle) -> int:
    """Answers received by our client."""
    config = EndpointModel(name="bench", url=server.url, model="m", structured="choice", timeout=TIMEOUT)
    client = Endpoint(config, None, BudgetLedger())
    replies = await asyncio.gather(*(client.ask(Question(chat(i), CHOICE, 10), 0) for i in range(CALLS)))
    await client.close()
    return sum(reply is not None and bool(reply.text) for reply in replies)


async def sdk(server: Handle) -> int:
    """Answers received by the openai SDK with its own retries."""
    slots = asyncio.Semaphore(LIMIT)
    async with AsyncOpenAI(base_url=server.url, timeout=TIMEOUT) as client:

        async def ask(number: int) -> bool:
            async with slots:
                try:
                    reply = await client.chat.completions.create(
                        model="m", messages=chat(number), max_tokens=10, extra_body={"structured_outputs": CHOICE}
                    )
                except OpenAIError:
                    return False
                return bool(reply.choices[0].message.content)

        return sum(await asyncio.gather(*(ask(i) for i in range(CALLS))))


def main() -> None:
    os.environ["OPENAI_API_KEY"] = KEY
    with start() as server:
        for share in (0.0, 0.2):
            faults = dict.fromkeys(FAULTS, share / len(FAULTS))
            for name, client in (("endpoint", endpoint), ("openai SDK", sdk)):
                server.reset(limit=LIMIT, service=[0.05, 0.1], retry_after="1", total=CALLS, faults=faults)
                started = time.monotonic()
                answered = asyncio.run(client(server))
                seconds = time.monotonic() - started
                seen = server.seen()
                print(
                    f"{share:.0%} faults, {name}: {CALLS / seconds:.0f} calls/s, mean concurrency {seen['concurrency']:.1f} of "
                    f"{LIMIT}, {answered:,} answered, {sum(n > 1 for n in seen['paid'].values())} paid twice, "
                    f"{seen['refusals']} refused",
                    flush=True,
                )


if __name__ == "__main__":
    main()
