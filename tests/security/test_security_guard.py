"""The page's guard by itself: how much it lets through, and from where. With the page: test_security_web.py."""

from civilqa.chat.web.guard import MAX_OPEN, MAX_OPEN_A_CLIENT, REQUESTS_A_MINUTE, Guard


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
