"""A server on a loopback port that answers each request with the next of given byte strings, for
answers that no HTTP library would send.
"""

from __future__ import annotations

import socket
import ssl
import threading
from typing import TYPE_CHECKING

from tests.stack.process import HOST

if TYPE_CHECKING:
    from typing_extensions import Self

RESET = b"RESET"
CLOSE = b"CLOSE"


def http(status=200, body=b"", **headers):
    """An answer of HTTP/1.1; header names with `_` for `-`."""
    lines = [f"HTTP/1.1 {status} Whatever"]
    headers.setdefault("Content_Length", len(body))
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Answers:
    """answers: the last one is given again and again. RESET and CLOSE end the connection without
    one. drip_s: between single bytes of an answer."""

    def __init__(self, *answers, drip_s=0.0, tls=None):
        self.answers = list(answers)
        self.drip_s = drip_s
        self.tls: ssl.SSLContext | None = tls
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.sent = 0
        """Bytes of answers that the client's side took."""
        self._listening = socket.create_server((HOST, 0))
        self._open: list[socket.socket] = []
        self._over = threading.Event()
        self.port = self._listening.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()
        for each in self._open:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client was quicker
            each.close()

    def header(self, name):
        """Of the last request, None where it has none."""
        for line in self.heads[-1].decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(": ")
            if key.lower() == name.lower():
                return value
        return None

    def _accept(self):
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            while self._exchange(connection):
                pass
            connection.close()
        except OSError:
            pass  # the client went away

    def _exchange(self, connection) -> bool:
        head, body = _read(connection)
        if not head:
            return False
        self.heads.append(head)
        self.bodies.append(body)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == RESET:
            linger = b"\x01\0\0\0\0\0\0\0"  # no FIN but an RST at close
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return False
        if answer == CLOSE:
            return False
        self._send(connection, answer)
        return b"connection: close" not in answer.lower()

    def _send(self, connection, answer):
        step = 1 if self.drip_s else 16 * 1024
        for start in range(0, len(answer), step):
            if self.drip_s and self._over.wait(self.drip_s):
                return
            connection.sendall(answer[start : start + step])
            self.sent += len(answer[start : start + step])


def _read(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b"", b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    size = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            size = int(line.partition(b":")[2])
    while len(body) < size:
        piece = connection.recv(65536)
        if not piece:
            return b"", b""
        body += piece
    return head, body
