"""The web page under load and against clients that hold on, come all at once or go away in the middle.

The long form of the first is by hand: python tests/benchmarks/web_load.py
"""

import asyncio
import contextlib
import shutil
import socket
import sys
import time

import httpx2 as httpx
import pytest

from conftest import ROOT, copy_project, edit_params

sys.path.insert(0, str(ROOT / "tests/benchmarks"))

import web_load
from web_load import Tab, put_under_load

QUESTIONS, CLIENTS = 100, 20
CROWD = 60  # at once, of whom 24 have room
HOLDERS = 200


@pytest.fixture(scope="module")
def page(tmp_path_factory, adapter_folder):
    """The page as its user starts it, in a process of its own, with the tiny model and answers of a few tokens."""
    project = copy_project(tmp_path_factory.mktemp("web") / "project")
    shutil.copytree(adapter_folder, project / "models/adapter")
    edit_params(project / "params.yaml", **{"chat.max_new_tokens": web_load.NEW_TOKENS})
    with web_load.served(project) as (address, server):
        yield address, server


async def ask_once(address, question="보증금을 돌려받으려면 어떻게 하나요?"):
    async with httpx.AsyncClient(base_url=address, timeout=120) as client:
        tab = Tab(client)
        return await tab.ask(question), await tab.shown()


def assert_that_it_answers(address):
    last, shown = asyncio.run(ask_once(address))
    assert last["finished"]
    assert shown == ["보증금을 돌려받으려면 어떻게 하나요?"]


@pytest.mark.slow
def test_twenty_browsers_ask_a_hundred_questions(page, outcomes):
    outcome = "every question answered in its own window, in order; memory flat"
    with outcomes.trial(f"{CLIENTS} browsers at once", "web", outcome):
        load = asyncio.run(put_under_load(*page, QUESTIONS, CLIENTS))
        print(load.summary())
        assert load.errors == []
        assert len(load.latencies) == QUESTIONS
        assert load.busy == 0
        before, after = load.memory_medians()
        assert after < before * (1 + web_load.GROWTH), (before, after)


@pytest.mark.slow
def test_more_than_there_is_room_for_come_at_once(page, outcomes):
    address, _ = page

    async def crowd():
        limits = httpx.Limits(max_connections=3 * CROWD)
        async with httpx.AsyncClient(base_url=address, timeout=300, limits=limits) as client:
            tabs = [Tab(client) for _ in range(CROWD)]
            return await asyncio.gather(*(tab.ask(f"{number}번 질문입니다") for number, tab in enumerate(tabs)))

    with outcomes.trial(
        f"{CROWD} questions at once", "web", "as many as there is room for answered, the others told so"
    ):
        answers = asyncio.run(crowd())
        refused = [last for last in answers if web_load.BUSY in last.get("error", "")]
        answered = [last for last in answers if last.get("finished")]
        assert len(refused) + len(answered) == CROWD, answers
        assert refused
        assert len(answered) >= 24
        assert_that_it_answers(address)


@pytest.mark.slow
def test_hundreds_hold_a_connection_open(page, outcomes):
    address, server = page
    host, port = address.removeprefix("http://").split(":")
    with (
        outcomes.trial(f"{HOLDERS} connections held open", "web", "the next question is answered"),
        contextlib.ExitStack() as stack,
    ):
        for number in range(HOLDERS):
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
            if number % 2:  # a page that is asked for and never read
                connection.sendall(f"GET /page.js HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            else:  # a request that never ends
                connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nX-Slow: ".encode())
        assert_that_it_answers(address)
    assert server.num_fds() < 1000


@pytest.mark.slow
def test_browsers_that_are_closed_in_the_middle_of_an_answer_leave_room(page, outcomes):
    address, server = page

    async def leave():
        async with httpx.AsyncClient(base_url=address, timeout=120) as client:
            for number in range(30):
                body = {"session": f"{number:032x}", "question": "질문입니다", "category": ""}
                async with client.stream("POST", "/ask", json=body | {"compare": False, "turns": False}):
                    pass  # gone before the first token

    with outcomes.trial("browsers closed in mid-answer", "web", "their room is free again"):
        asyncio.run(leave())
        deadline = time.monotonic() + 120
        while web_load.BUSY in asyncio.run(ask_once(address))[0].get("error", ""):
            assert time.monotonic() < deadline
            time.sleep(1)
        assert_that_it_answers(address)
        assert server.is_running()
