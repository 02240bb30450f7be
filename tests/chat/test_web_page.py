import pytest

from civilqa.chat.web.page import open_socket
from civilqa.program.errors import ParameterError


def test_an_address_that_cannot_be_had_is_refused():
    with open_socket("127.0.0.1", 0) as taken:
        for host, port in (("127.0.0.1", taken.getsockname()[1]), ("203.0.113.1", 0), ("127.0.0.1", 99999)):
            with pytest.raises(ParameterError, match="--port나 --host를"):
                open_socket(host, port)
