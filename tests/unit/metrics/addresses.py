"""Where nobody listens yet."""

from __future__ import annotations

import socket


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"
