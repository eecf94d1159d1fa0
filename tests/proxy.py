"""A TCP proxy before a server: with TLS, counting round trips, cutting or delaying answers."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Proxy:
    """`trips`: how often the client spoke after the server had. `answer_bytes`: cut the connection after so many bytes
    of an answer, once; `silent`: swallow the answers."""

    def __init__(self, port: int, context: ssl.SSLContext | None) -> None:
        self.trips = 0
        self.answer_bytes: int | None = None
        self.silent = False
        self._target = port
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        self._listener.close()
        for each in self._open:
            with suppress(OSError):
                each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True)
            server = socket.create_connection(("127.0.0.1", self._target))
            self._open += [client, server]
            spoke = threading.Event()
            threading.Thread(target=self._answer, args=(server, client, spoke), daemon=True).start()
            spoke.set()
            while data := client.recv(65536):
                if spoke.is_set():
                    self.trips += 1
                    spoke.clear()
                server.sendall(data)
        with suppress(OSError):
            server.close()

    def _answer(self, server: socket.socket, client: socket.socket, spoke: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                while self.silent:
                    time.sleep(0.01)
                if self.answer_bytes is not None:
                    left, self.answer_bytes = self.answer_bytes, None
                    client.sendall(data[:left])
                    break
                # An answer in pieces is one answer: the client speaks only once it has all of them.
                spoke.set()
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            client.close()


@contextmanager
def proxy(port: int, context: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    made = Proxy(port, context)
    try:
        yield made
    finally:
        made.close()


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate of 127.0.0.1 (its file), and a server's context that shows it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis of a test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "redis.crt", folder / "redis.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return public, context
