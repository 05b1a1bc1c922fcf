"""Where metrics are served, and that they are."""

from __future__ import annotations

import gzip
import socket
import urllib.request

import pytest
from prometheus_client import Counter
from typer.testing import CliRunner

from qnwis.cli.qnwis_continuity import app
from qnwis.metrics.exposition import Exposition
from qnwis.metrics.serving import MetricsAddress, host_and_port, served
from tests.unit.metrics.addresses import free_address


def test_a_registry_is_served_until_the_context_ends() -> None:
    registry, address = Exposition(), free_address()
    Counter("seen", "…", registry=registry).inc(3)
    for _ in range(2):  # the address is free again
        with served(registry, address), urllib.request.urlopen(f"http://{address}/metrics") as answer:
            assert b"seen_total 3.0" in answer.read()


def test_it_is_packed_for_whoever_takes_it_packed_and_cut_to_the_names_that_are_asked_for() -> None:
    registry, address = Exposition(), free_address()
    for name in ("seen", "heard"):
        Counter(name, "…", registry=registry).inc()
    asked = urllib.request.Request(f"http://{address}/metrics?name[]=seen_total&name[]=other")
    asked.add_header("accept-encoding", "deflate, gzip;q=1.0")
    with served(registry, address), urllib.request.urlopen(asked) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = gzip.decompress(answer.read()).decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["seen_total 1.0"]


def test_an_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(MetricsAddress, match=address), served(Exposition(), address):
            pass


@pytest.mark.parametrize("bad", ["9464", ":9464", "host:", "host:0", "host:65536", "host:x", "host:²"])
def test_an_address_that_is_none_is_refused_with_an_example(bad: str) -> None:
    with pytest.raises(MetricsAddress, match="expected HOST:PORT, for example"):
        host_and_port(bad)


def test_hosts_and_ports() -> None:
    assert host_and_port("0.0.0.0:9464") == ("0.0.0.0", 9464)
    assert host_and_port("[::1]:9464") == ("::1", 9464)


def test_a_worker_with_a_bad_address_ends_before_it_looks_for_a_server() -> None:
    command = ["worker", "--config-dir", "x", "--vantages-only", "--vantage", "v", "--metrics", "9464"]
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 2 and "expected HOST:PORT" in ended.output.replace("\n", " ")
