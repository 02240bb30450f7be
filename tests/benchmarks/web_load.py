"""Asks the web page many questions from many browsers at once, and looks for errors, mix-ups and growing memory.

    python tests/benchmarks/web_load.py                     1,000 questions from 20 clients: some minutes
    python tests/benchmarks/web_load.py --questions 5000

Writes web_load.json beside this file. The page is the real one, with the tiny model and answers of a few tokens: what
is measured is the page and its queue, not the speed of a model. Each client does what a browser does: it asks, reads
the answer as it grows, asks again, and after some questions closes the tab and opens a new one. What a reload would
show each time must be its own questions, all of them, in its order.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
from projects import ROOT, make_project, write_report

from conftest import make_adapter

RESULT = Path(__file__).with_suffix(".json")
QUESTIONS, CLIENTS = 1000, 20
QUESTIONS_A_TAB = 10
NEW_TOKENS = 8
GROWTH = 0.05  # of the server's memory, from the second fifth of the questions to the last, that counts as flat
BUSY = "기다리는 질문이 많습니다"


@dataclass
class Load:
    """What the clients saw; `memory` is the server's resident size in MiB after each answer."""

    latencies: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    busy: int = 0
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Return what is written down."""
        before, after = self.memory_medians()
        percentiles = statistics.quantiles(self.latencies, n=100)
        return {
            "answers": len(self.latencies),
            "errors": self.errors[:10],
            "refused_as_busy": self.busy,
            "seconds": round(self.seconds, 1),
            "answers_a_second": round(len(self.latencies) / self.seconds, 2),
            "latency_seconds": {
                **{f"p{rank}": round(percentiles[rank - 1], 2) for rank in (50, 90, 99)},
                "max": round(max(self.latencies), 2),
            },
            "memory_mib": {"second_fifth": round(before, 1), "last_fifth": round(after, 1)},
            "growth": round(after / before - 1, 4),
        }

    def memory_medians(self) -> tuple[float, float]:
        """Return the median memory during the second and during the last fifth of the answers."""
        fifth = len(self.memory) // 5
        return statistics.median(self.memory[fifth : 2 * fifth]), statistics.median(self.memory[-fifth:])


class Tab:
    """An open page: what a browser sends, without the browser."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.session = uuid.uuid4().hex

    async def ask(self, question: str) -> dict[str, Any]:
        """Return the last event of an answer: `finished`, or `error` and why."""
        body = {"session": self.session, "question": question, "category": "", "compare": False, "turns": False}
        last: dict[str, Any] = {}
        async with self.client.stream("POST", "/ask", json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                last = json.loads(line)
        return last

    async def shown(self) -> list[str]:
        """Return the questions that a reload of the page shows, in order."""
        response = await self.client.post("/conversation", json={"session": self.session})
        return [exchange["question"] for exchange in response.raise_for_status().json()]


async def browse(number: int, questions: int, client: httpx.AsyncClient, load: Load, server: Any) -> None:
    """Ask so many questions one after the other, in a new tab after every few."""
    for first in range(0, questions, QUESTIONS_A_TAB):
        asked: list[str] = []
        tab = Tab(client)
        for index in range(first, min(first + QUESTIONS_A_TAB, questions)):
            question = f"{number}번 이용자의 {index}번째 질문: 보증금을 돌려받으려면?"
            started = time.perf_counter()
            try:
                last = await tab.ask(question)
                while BUSY in last.get("error", ""):
                    load.busy += 1
                    await asyncio.sleep(0.5)
                    last = await tab.ask(question)
                asked.append(question)
                shown = await tab.shown()
                if not last.get("finished"):
                    load.errors.append(f"{question} {last}"[:500])
                elif shown != asked:
                    load.errors.append(f"asked {asked}, shown {shown}"[:500])
            except httpx.HTTPError as error:
                load.errors.append(f"{question} {error!r}")
            load.latencies.append(time.perf_counter() - started)
            load.memory.append(server.memory_info().rss / 2**20)


async def put_under_load(address: str, server: psutil.Process, questions: int, clients: int) -> Load:
    """Share so many questions out among so many clients, all at once."""
    load = Load()
    limits = httpx.Limits(max_connections=4 * clients)
    async with httpx.AsyncClient(base_url=address, timeout=httpx.Timeout(600), limits=limits) as client:
        started = time.perf_counter()
        each = [questions // clients + (number < questions % clients) for number in range(clients)]
        await asyncio.gather(*(browse(number, count, client, load, server) for number, count in enumerate(each)))
        load.seconds = time.perf_counter() - started
    return load


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Serve the page of a project with an adapter; yields its address and its process."""
    log = folder / ".web.log"
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "stages/chat.py", "web", "--port", "0"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
    try:
        line = process.stdout.readline()
        assert "http://" in line, log.read_text(encoding="utf-8")
        address = line.split()[1]
        for _ in range(200):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(address, timeout=5).status_code == 200:  # 503 while the model is loaded
                    break
            time.sleep(0.2)
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert "Traceback" not in log.read_text(encoding="utf-8"), log.read_text(encoding="utf-8")[-3000:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder) / "project", **{"chat.max_new_tokens": NEW_TOKENS})
        with contextlib.chdir(ROOT):
            make_adapter(project / "models/adapter")
        with served(project) as (address, server):
            load = asyncio.run(put_under_load(address, server, arguments.questions, arguments.clients))
    summary = load.summary()
    write_report(RESULT, {"clients": arguments.clients, "new_tokens": NEW_TOKENS, **summary})
    print(json.dumps(summary, indent=1, ensure_ascii=False))
    if load.errors or summary["growth"] > GROWTH:
        raise SystemExit("errors, or growing memory: see above")


if __name__ == "__main__":
    main()
