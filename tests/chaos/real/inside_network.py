"""The lab's network as the kernel has it. Run by a test inside an enclosure; pytest collects no such name."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from qnwis.lab.network import How, Network, entering

AT = {"a": "10.77.0.10", "b": "10.77.0.11", "c": "10.77.0.12"}
PORT = 7000
ECHO = (
    "import socket, threading\n"
    "def serve(c):\n"
    "    while c.recv(65536): pass\n"
    "    c.sendall(b'x'); c.close()\n"
    f"s = socket.create_server(('0.0.0.0', {PORT}))\n"
    "print('up', flush=True)\n"
    "while True: threading.Thread(target=serve, args=[s.accept()[0]], daemon=True).start()\n"
)
ASK = (
    "import socket, sys\n"
    f"s = socket.create_connection((sys.argv[1], {PORT}), timeout=1)\n"
    "s.settimeout(float(sys.argv[3]))\n"
    "sent = int(sys.argv[2]); s.sendall(bytes(sent)); s.shutdown(socket.SHUT_WR)\n"
    "assert s.recv(1)\n"
    "print('answered')\n"
)


@pytest.fixture(scope="module")
def network() -> Network:
    built = Network.build(AT)
    for party in AT:
        server = subprocess.Popen([*entering(party), sys.executable, "-c", ECHO], stdout=subprocess.PIPE)
        assert server.stdout is not None and server.stdout.readline() == b"up\n"
    return built


@pytest.fixture(autouse=True)
def healed(network: Network) -> None:
    network.heal_all()


def ask(sender: str, receiver: str, size: int = 1, timeout_s: float = 1.0) -> str:
    """`answered`, or the error's name."""
    command = [*entering(sender), sys.executable, "-c", ASK, AT[receiver], str(size), str(timeout_s)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1].partition(":")[0]


def test_a_dropped_link_is_silent_and_a_healed_one_answers(network: Network) -> None:
    network.cut([("a", "b"), ("b", "a")])
    assert (ask("a", "b"), ask("a", "c"), ask("b", "c")) == ("TimeoutError", "answered", "answered")
    network.heal([("a", "b"), ("b", "a")])
    assert ask("a", "b") == "answered"


def test_a_cut_in_one_direction_leaves_no_conversation_but_lets_packets_through(network: Network) -> None:
    network.cut([("a", "b")])
    with subprocess.Popen(
        [*entering("a"), sys.executable, "-c", _receiver()], stdout=subprocess.PIPE, text=True
    ) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "up\n"
        send = f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('{AT['a']}', {PORT}))"
        subprocess.run([*entering("b"), sys.executable, "-c", send], check=True)
        assert receiver.stdout.readline() == "heard\n"
    assert (ask("a", "b"), ask("b", "a")) == ("TimeoutError", "TimeoutError")


def _receiver() -> str:
    return (
        "import socket\n"
        f"s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', {PORT})); s.settimeout(5)\n"
        "print('up', flush=True); s.recv(10); print('heard', flush=True)\n"
    )


@pytest.mark.parametrize("links", [[("a", "b")], [("a", "b"), ("b", "a")]], ids=["one way", "both ways"])
def test_a_refusing_link_refuses_at_once(network: Network, links: list[tuple[str, str]]) -> None:
    network.cut(links, How.REFUSE)
    assert ask("a", "b") == "ConnectionRefusedError"


def test_an_open_connection_over_a_link_that_begins_to_refuse_is_reset(network: Network) -> None:
    script = (
        "import socket, sys\n"
        f"s = socket.create_connection(('{AT['b']}', {PORT})); s.sendall(b'x')\n"
        "print('open', flush=True); sys.stdin.readline(); s.sendall(b'x'); s.settimeout(5)\n"
        "s.recv(1)\n"
    )
    with subprocess.Popen(
        [*entering("a"), sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdout is not None and client.stdout.readline() == "open\n"
        network.cut([("a", "b"), ("b", "a")], How.REFUSE)
        _, said = client.communicate("go on\n")
    assert "ConnectionResetError" in said


def test_a_slow_link_is_slow_and_the_others_are_not(network: Network) -> None:
    network.slow([("a", "b")], 400)
    assert ask("a", "c", 200_000) == "answered"
    assert ask("a", "b", 200_000) == "TimeoutError"  # 200 kB at 400 kbit/s are 4 s
    network.fast([("a", "b")])
    assert ask("a", "b", 200_000) == "answered"


def test_nothing_reaches_the_machine_outside(network: Network) -> None:
    with pytest.raises(OSError, match="unreachable"), socket.create_connection(("192.0.2.1", 80), timeout=1):
        pass
