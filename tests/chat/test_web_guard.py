"""The guard by itself; with the page behind it: tests/security/test_security_web.py."""

import pytest

from civilqa.chat.web.guard import (
    MAX_OPEN,
    MAX_OPEN_A_CLIENT,
    MAX_WAITING,
    MAX_WAITING_A_CLIENT,
    REQUESTS_A_MINUTE,
    Guard,
    WaitingRoom,
    is_loopback,
)
from civilqa.program.errors import QuestionError


class Stream:
    """An answer that never ends by itself."""

    def __init__(self):
        self.finished = False

    def stop(self):
        self.finished = True


def test_the_waiting_room_is_bounded_and_forgets_who_has_left():
    room = WaitingRoom()
    streams = [room.start(f"session {number}", "127.0.0.1", Stream) for number in range(MAX_WAITING)]
    with pytest.raises(QuestionError, match="잠시 뒤에 다시 물어 주십시오"):
        room.start("one more", "127.0.0.1", Stream)
    streams[3].finished = True
    room.start("one more", "127.0.0.1", Stream)
    assert len(room.streams) == MAX_WAITING


def test_a_session_has_one_answer_at_a_time():
    room = WaitingRoom()
    first = room.start("session", "127.0.0.1", Stream)
    with pytest.raises(QuestionError, match="아직 답하고 있습니다"):
        room.start("session", "127.0.0.1", Stream)
    first.finished = True
    room.start("session", "127.0.0.1", Stream)


def test_one_address_cannot_take_all_the_room():
    room = WaitingRoom()
    for number in range(MAX_WAITING_A_CLIENT):
        room.start(f"session {number}", "192.0.2.1", Stream)
    with pytest.raises(QuestionError, match="잠시 뒤에 다시 물어 주십시오"):
        room.start("one more", "192.0.2.1", Stream)
    room.start("another's", "192.0.2.2", Stream)


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("192.0.2.1", False)]
)
def test_what_is_the_loopback(host, local):
    assert is_loopback(host) is local


def test_one_session_is_stopped_and_no_other():
    room = WaitingRoom()
    mine, another = room.start("mine", "127.0.0.1", Stream), room.start("another", "127.0.0.1", Stream)
    room.stop("mine")
    room.stop("nobody's")
    assert (mine.finished, another.finished) == (True, False)


def test_an_address_elsewhere_may_send_so_many_requests_a_minute_and_this_machine_any_number():
    guard = Guard(app=None)
    scope = {"type": "http", "method": "POST", "path": "/ask", "headers": []}
    refusals = [guard.refusal(scope, "192.0.2.1") for _ in range(REQUESTS_A_MINUTE + 5)]
    assert refusals[:REQUESTS_A_MINUTE] == [None] * REQUESTS_A_MINUTE
    assert [status for status, _ in refusals[REQUESTS_A_MINUTE:]] == [429] * 5
    assert guard.refusal(scope, "192.0.2.2") is None
    assert [guard.refusal(scope, "127.0.0.1") for _ in range(REQUESTS_A_MINUTE + 5)] == [None] * (REQUESTS_A_MINUTE + 5)


def test_an_address_is_let_in_again_after_a_while_and_forgotten():
    guard = Guard(app=None)
    assert all(guard.take("192.0.2.1", 0.0) for _ in range(REQUESTS_A_MINUTE))
    assert not guard.take("192.0.2.1", 0.0)
    assert guard.take("192.0.2.1", 60 / REQUESTS_A_MINUTE + 0.01)
    for number in range(10_001):
        guard.take(f"2001:db8::{number:x}", 1.0)
    assert len(guard.allowances) <= 10_000
    assert not guard.take("192.0.2.9", 1.0)  # of so many addresses at once none is let in besides
    assert guard.take("192.0.2.9", 100.0)
    assert len(guard.allowances) == 1


def test_the_open_requests_of_one_address_and_of_all_are_counted():
    guard = Guard(app=None)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    guard.open["192.0.2.1"] = MAX_OPEN_A_CLIENT
    assert guard.refusal(scope, "192.0.2.1")[0] == 503
    assert guard.refusal(scope, "192.0.2.2") is None
    guard.open["127.0.0.1"] = MAX_OPEN
    status, reason = guard.refusal(scope, "127.0.0.1")
    assert status == 503
    assert "잠시 뒤에" in reason
