"""Making addresses silent: a listener that lets no packet through to them, as if their hosts were gone.

A connection to such an address is not refused: nobody answers, and whoever asks waits for its own limit. The
kernel asks a filter of the listener (classic BPF) about each packet; nothing of the machine's own is changed,
and no privilege is needed.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address

SO_ATTACH_FILTER = 26
LOAD_WORD, JUMP_GREATER_EQUAL, JUMP_GREATER, RETURN = 0x20, 0x35, 0x25, 0x06
DESTINATION = 0xFFF00000 + 16
"""In the packet's network header, where IPv4 has the destination."""
DROP, PASS = 0, 0xFFFFFFFF

Range = tuple[int, int]
"""First and last address, as numbers."""


def ranges(addresses: Iterable[str]) -> list[Range]:
    """The addresses as the fewest ranges."""
    found: list[Range] = []
    for one in sorted({int(IPv4Address(text)) for text in addresses}):
        if found and found[-1][1] == one - 1:
            found[-1] = (found[-1][0], one)
        else:
            found.append((one, one))
    return found


def silence(listener: socket.socket, addresses: Iterable[str]) -> None:
    """From now on the listener hears nothing that is sent to these, and everything else."""
    program = _program(ranges(addresses))
    code = ctypes.create_string_buffer(b"".join(program))
    listener.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(code))
    )


def _program(silent: Sequence[Range]) -> list[bytes]:
    program = [_instruction(LOAD_WORD, DESTINATION)]
    for first, last in silent:
        program += [
            _instruction(JUMP_GREATER_EQUAL, first, otherwise=2),
            _instruction(JUMP_GREATER, last, then=1),
            _instruction(RETURN, DROP),
        ]
    return [*program, _instruction(RETURN, PASS)]


def _instruction(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """`then`, `otherwise`: how many instructions a comparison leaves out."""
    return struct.pack("HBBI", code, then, otherwise, value)
