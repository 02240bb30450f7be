"""Serves the page to this machine until Ctrl-C."""

import asyncio
import contextlib
import logging
import socket
from pathlib import Path

import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from civilqa.chat.engine import Engine
from civilqa.chat.web.guard import MAX_CONNECTIONS, Guard, is_loopback
from civilqa.chat.web.page import BaseOnDemand, make_missing_page, make_page
from civilqa.program.errors import ModelError, ParameterError
from civilqa.program.lifecycle.stage import Terminated


def make_app(page: ASGIApp, host: str) -> ASGIApp:
    """Return the page behind the guard; on the loopback it answers to its names alone."""
    guarded = Guard(page)
    if not is_loopback(host):
        return guarded
    # A page elsewhere could otherwise reach this one through a name of its own that points here (DNS rebinding).
    return TrustedHostMiddleware(guarded, allowed_hosts=["localhost", "127.0.0.1", "[::1]", host])


def open_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket, so that an address that cannot be had is said before the model is loaded.

    Raises:
        ParameterError: the port is taken, or the address is none of this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ParameterError(f"{host}:{port}: 열 수 없습니다({error}). --port나 --host를 바꾸어 주십시오.") from None


def serve_page(engine: Engine, folder: Path, host: str, port: int) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        ParameterError: the address cannot be had.
        ModelError: there is a model, but it cannot be loaded. Where there is none, the page says so.
    """
    listening = open_socket(host, port)
    missing: ModelError | None = None
    try:
        engine.load_finetuned_model(folder)
    except ModelError as error:
        if engine.has_model(folder):
            raise
        missing = error
    page = make_missing_page(missing) if missing else make_page(engine, BaseOnDemand(engine), saves=is_loopback(host))
    address = f"http://{'[' + host + ']' if ':' in host else host}:{listening.getsockname()[1]}"
    config = uvicorn.Config(
        make_app(page, host),
        log_level="warning",
        timeout_graceful_shutdown=3,
        limit_concurrency=MAX_CONNECTIONS,
        server_header=False,
    )
    logging.getLogger("uvicorn.error").addFilter(is_no_farewell)
    # uvicorn ends in order, and then sends itself the signal again that ended it: to end the page is no accident.
    with contextlib.suppress(KeyboardInterrupt, Terminated):
        print(f"브라우저에서 {address} 을 여십시오. 끝내려면 Ctrl-C를 누르십시오.")
        if not is_loopback(host):
            print("경고: 다른 컴퓨터에서도 열 수 있는 주소입니다. 누구나 질문할 수 있고 암호화되지 않습니다.")
        uvicorn.Server(config).run(sockets=[listening])


def is_no_farewell(record: logging.LogRecord) -> bool:
    """Whether a log record is anything but what is cut off at the end, each with a traceback: open tabs, the start."""
    cancelled = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    # What is cut off before the first question is told as text alone.
    message = record.getMessage().rstrip()
    return not cancelled and not message.endswith(("CancelledError", "timeout graceful shutdown exceeded"))
