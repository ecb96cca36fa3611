import socket

import pytest

from spine.errors import ConfigError
from spine.listening import bound_socket


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_socket_is_bound_but_lets_nobody_wait_in_line_before_it_listens(host):
    with bound_socket(host, 0) as made:
        port = made.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((made.getsockname()[0], port), timeout=5)
        made.listen()
        socket.create_connection((made.getsockname()[0], port), timeout=5).close()


def test_a_port_that_is_taken_and_an_address_of_another_machine_are_told_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"^127.0.0.1:{port}: can't listen there \(Address already in use\); "
        ):
            bound_socket("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"^192.0.2.1:80: can't listen there \("):
        bound_socket("192.0.2.1", 80)
