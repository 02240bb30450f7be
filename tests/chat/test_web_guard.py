import pytest

from civilqa.chat.web.guard import MAX_WAITING, MAX_WAITING_A_CLIENT, WaitingRoom, is_loopback
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
