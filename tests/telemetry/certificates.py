"""A certificate authority of our own, and what it signed for a loopback server and a client."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    directory: Path

    def __getattr__(self, name: str) -> str:
        """The file of `ca`, `server` or `client`: a certificate, or with `_key` its key."""
        return str(self.directory / f"{name}.pem")

    def server_side(self, *, wants_client: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server, self.server_key)
        if wants_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca)
        return context


def make(directory: Path) -> Certificates:
    """With OpenSSL's command; they are valid for a day."""
    made = Certificates(directory)
    key = ["-newkey", "rsa:2048", "-nodes", "-sha256", "-days", "1"]
    authority = ["-x509", "-subj", "/CN=authority", "-keyout", made.ca_key, "-out", made.ca]
    usage = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign"]
    _openssl("req", *key, *authority, *usage)
    for name in ("server", "client"):
        request = directory / f"{name}.csr"
        extensions = directory / f"{name}.ext"
        extensions.write_text("subjectAltName=IP:127.0.0.1\n")
        own = ["-subj", f"/CN={name}", "-keyout", getattr(made, f"{name}_key"), "-out", request]
        _openssl("req", *key, *own)
        _openssl(
            "x509", "-req", "-in", request, "-CA", made.ca, "-CAkey", made.ca_key, "-days", "1",
            "-CAcreateserial", "-extfile", extensions, "-out", getattr(made, name),
        )  # fmt: skip
    return made


def _openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
