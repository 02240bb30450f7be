"""What the page refuses: too much, too often, and what comes from elsewhere."""

import asyncio
import ipaddress
import time
from collections import Counter
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from civilqa.chat.stream import AnswerStream
from civilqa.program.errors import QuestionError

BUSY = "지금은 기다리는 질문이 많습니다. 잠시 뒤에 다시 물어 주십시오."

MAX_WAITING = 24  # questions at a time, those that wait for the model included
MAX_WAITING_A_CLIENT = 4  # of them from one address, unless it is this machine's
MAX_BODY_BYTES = 256 * 1024  # of a request: a question of 2,000 syllables takes 6 KB
MAX_BODY_SECONDS = 20  # for it to arrive
MAX_OPEN = 300  # requests at a time: an open tab holds one while its question is answered
MAX_OPEN_A_CLIENT = 30  # of them from one address, unless it is this machine's
MAX_CONNECTIONS = 500  # those that have not sent a whole request yet included; of 1,024 files that a process may open
REQUESTS_A_MINUTE = 120  # that change something, from one address, unless it is this machine's

# What a browser may do with the page: nothing that leaves this server.
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
CLOSE = {"connection": "close"}  # a body that is refused is not read to its end


class WaitingRoom:
    """The answers that are going on: one of a session, a few of an address, so many in all. Of one thread's use."""

    def __init__(self) -> None:
        self.streams: dict[str, tuple[str, AnswerStream]] = {}  # by session: the client's address, its running answer

    def start(self, session: str, address: str, begin: Callable[[], AnswerStream]) -> AnswerStream:
        """Begin an answer, if there is room for it.

        Those that are finished are forgotten here, and not where they are read: a browser that is closed reads no end.

        Raises:
            QuestionError: there is no room, or the question cannot be asked.
        """
        self.streams = {name: running for name, running in self.streams.items() if not running[1].finished}
        from_here = sum(running[0] == address for running in self.streams.values())
        if session in self.streams:
            raise QuestionError("앞선 질문에 아직 답하고 있습니다. 답변이 끝난 뒤에 물어 주십시오.")
        if len(self.streams) >= MAX_WAITING or (from_here >= MAX_WAITING_A_CLIENT and not is_loopback(address)):
            raise QuestionError(BUSY)
        stream = begin()
        self.streams[session] = address, stream
        return stream

    def stop(self, session: str) -> None:
        """End the answer of a session; what there is of it stays."""
        if session in self.streams:
            self.streams[session][1].stop()


class Guard:
    """ASGI middleware: refuses what is too much, too often or from elsewhere; tells browsers to stay here."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.open: Counter[str] = Counter()  # by address
        self.allowances: dict[str, tuple[float, float]] = {}  # by address: requests left, and when that was

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # a websocket, which the page does not open, is closed by Starlette
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        address = scope["client"][0] if scope.get("client") else ""
        if refusal := self.refusal(scope, address):
            status, reason = refusal
            await PlainTextResponse(reason, status, CLOSE)(scope, receive, send_guarded)
            return
        self.open[address] += 1
        try:
            await self.app(scope, receive, send_guarded)
        finally:
            self.open -= Counter([address])  # which forgets addresses that have none left

    def refusal(self, scope: Scope, address: str) -> tuple[int, str] | None:
        """Return status and reason for a request that is not to be answered."""
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        # A page elsewhere can send a request here, though it cannot read the answer.
        foreign = headers.get("sec-fetch-site") == "cross-site" and scope["path"] != "/"
        if foreign or (origin is not None and origin.partition("://")[2] != headers.get("host")):
            return 403, "다른 사이트에서 보낸 요청입니다."
        local = is_loopback(address)
        if self.open.total() >= MAX_OPEN or (self.open[address] >= MAX_OPEN_A_CLIENT and not local):
            return 503, BUSY
        if scope["method"] == "POST" and not local and not self.take(address, time.monotonic()):
            return 429, BUSY
        return None

    def take(self, address: str, now: float) -> bool:
        """Return whether an address may send one more request now: REQUESTS_A_MINUTE at once, and as many a minute."""
        if len(self.allowances) >= 10_000:
            self.allowances = {key: value for key, value in self.allowances.items() if now - value[1] < 60}
            if len(self.allowances) >= 10_000 and address not in self.allowances:
                return False
        left, since = self.allowances.get(address, (REQUESTS_A_MINUTE, now))
        left = min(REQUESTS_A_MINUTE, left + (now - since) * REQUESTS_A_MINUTE / 60)
        self.allowances[address] = max(left - 1, 0), now
        return left >= 1


async def read_body(request: Request) -> bytes:
    """Return a request's body.

    Raises:
        HTTPException: it is too large, or does not come to its end.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(MAX_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise HTTPException(413, "요청이 너무 큽니다.", CLOSE)
    except (TimeoutError, ClientDisconnect):
        raise HTTPException(408, "요청이 끝까지 오지 않았습니다.", CLOSE) from None
    return bytes(body)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
