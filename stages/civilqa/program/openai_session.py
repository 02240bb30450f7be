"""The connection to an OpenAI-compatible address: it asks again, and has its API key from the environment alone."""

import os

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry


def open_session(
    key_variable: str, max_retries: int, connections: int = 1, slow_retries: int | None = None
) -> requests.Session:
    """Return a session for up to `connections` threads at a time.

    Args:
        key_variable: the environment variable that holds the API key, if there is one.
        max_retries: where there is no connection or the server says that it is busy; urllib3 honours Retry-After.
        slow_retries: where no answer came in time; None: as many.
    """
    session = requests.Session()
    retry = Retry(
        total=max_retries,
        read=slow_retries,
        backoff_factor=0.5,
        status_forcelist=[408, 409, 429, 500, 502, 503, 504],
        allowed_methods=None,  # POST, too: a question asked twice does no harm
        raise_on_status=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=connections))
    key = os.environ.get(key_variable, "").strip()

    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if key:
            request.headers["Authorization"] = f"Bearer {key}"
        return request

    session.auth = authorize  # also without a key: requests would take one for this host from ~/.netrc
    return session
