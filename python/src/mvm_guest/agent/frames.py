"""A connection to the agent: the VMM's vsock handshake, then frames of JSON, under one deadline.

The handshake is that of Firecracker's vsock device (docs/vsock.md, host-initiated connections): a
line `CONNECT <port>`, answered by a line `OK <host port>`. A frame is a 4-byte big-endian length
and as many bytes of JSON.
"""

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

MAX_FRAME = 256 * 1024
_MAX_SOCKET_PATH = 107
_MAX_HANDSHAKE_LINE = 32


class Eof(Exception):
    """The other end closed the connection; `started` tells whether part of a frame had come."""

    def __init__(self, *, started: bool) -> None:
        self.started = started
        super().__init__("the connection was closed")


class Malformed(Exception):
    """What came is not what the protocol allows."""


class Connection:
    """One connection. Every method raises TimeoutError at its deadline, OSError and Eof."""

    def __init__(self, path: Path, port: int, deadline: float) -> None:
        """Connect to the Unix socket at `path`, and through it to the guest's vsock `port`.

        `deadline` is a time of the monotonic clock. Raises Malformed for another answer than OK.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._allow(deadline)
            connect(self._socket, path)
            self._send(f"CONNECT {port}\n".encode(), deadline)
            line = self._line(deadline)
            if not line.startswith(b"OK "):
                raise Malformed(f"the VMM answered CONNECT with {line!r}")
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def exchange(self, request: Any, deadline: float) -> Any:
        """Send one frame and return the JSON value of the next.

        Raises Malformed for a frame over 256 KiB and for one that is not JSON.
        """
        body = json.dumps(request, separators=(",", ":")).encode()
        self._send(len(body).to_bytes(4) + body, deadline)
        length = int.from_bytes(self._exactly(4, deadline, started=False))
        if length > MAX_FRAME:
            raise Malformed(f"the agent announced a frame of {length} bytes; {MAX_FRAME} is most")
        answer = self._exactly(length, deadline, started=True)
        try:
            return json.loads(answer)
        except (ValueError, RecursionError):
            raise Malformed("the agent answered with something that is not JSON") from None

    def _line(self, deadline: float) -> bytes:
        # Byte by byte: what follows the line belongs to the guest's own stream.
        line = b""
        while len(line) < _MAX_HANDSHAKE_LINE:
            byte = self._some(1, deadline)
            if not byte:
                raise Eof(started=bool(line))
            if byte == b"\n":
                return line
            line += byte
        raise Malformed(f"the VMM answered CONNECT with {line!r}")

    def _send(self, content: bytes, deadline: float) -> None:
        self._allow(deadline)
        # Whoever hung up may have said why before: reading tells.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(content)

    def _exactly(self, length: int, deadline: float, *, started: bool) -> bytes:
        received = bytearray()
        while len(received) < length:
            some = self._some(length - len(received), deadline)
            if not some:
                raise Eof(started=started or bool(received))
            received += some
        return bytes(received)

    def _some(self, length: int, deadline: float) -> bytes:
        self._allow(deadline)
        try:
            return self._socket.recv(length)
        except ConnectionResetError:
            return b""

    def _allow(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)


def connect(client: socket.socket, path: Path) -> None:
    """Connect to the Unix socket at `path`, however long that is. Raises OSError."""
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
        client.connect(str(path))
        return
    # A socket's address holds 107 bytes; through the directory's descriptor any depth is reached.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        client.connect(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
