"""A throw-away PostgreSQL from the machine's installed binaries."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from tests.stack.process import HOST, Server, ServerError, clean_environment, run_tool
from tests.stack.programs import MissingProgram

if TYPE_CHECKING:
    from typing_extensions import Self

URL_VARIABLE = "PBMON_TEST_POSTGRES_URL"
REMEDY = f"install PostgreSQL (its server, `initdb` and `postgres`) or set {URL_VARIABLE}"
DEBIAN = Path("/usr/lib/postgresql")
VERSION = "15"
USER = "pbmon"
# Only this throw-away server knows it. A password is there so that tests see if it leaks.
PASSWORD = "the-tests-password"
# PostgreSQL refuses to run as root; these accounts have no rights that matter.
UNPRIVILEGED = ("postgres", "nobody")
CONFIG = """\
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
fsync = off
synchronous_commit = off
full_page_writes = off
"""


class Postgres(Server):
    """A PostgreSQL cluster of its own, or the server that PBMON_TEST_POSTGRES_URL names."""

    name: ClassVar[str] = "postgres"
    port_names: ClassVar[tuple[str, ...]] = ("sql",)
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast": clients don't hold it up

    def __init__(self) -> None:
        super().__init__()
        self._given_url = os.environ.get(URL_VARIABLE, "")

    @property
    def url(self) -> str:
        if self._given_url:
            return self._given_url
        return f"postgresql://{USER}:{PASSWORD}@{HOST}:{self.ports['sql']}/postgres"

    def start(self) -> Self:
        if not self._given_url:
            return super().start()
        _require_answer(self._given_url)
        return self

    def crash(self) -> None:
        """End it in the middle of everything, and start it again: it recovers from its log. One
        that was given to us goes on."""
        if not self._given_url:
            self._end(signal.SIGQUIT)  # "immediate"; by SIGKILL its backends would outlive it
            self.start()

    def command(self) -> list[str]:
        binaries = postgres_binaries()
        data = self.home / "data"
        if not data.exists():
            self._initialise(binaries)
        config = CONFIG.format(host=HOST, port=self.ports["sql"])
        path = self.home / "postgresql.conf"
        path.write_text(config, encoding="utf-8")
        path.chmod(0o644)
        return [str(binaries / "postgres"), "-D", str(data), "-c", f"config_file={path}"]

    def environment(self) -> dict[str, str]:
        return {**clean_environment(), "LC_ALL": "C.UTF-8"}

    def popen_options(self) -> dict[str, Any]:
        account = _account()
        if account is None:
            return {}
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def is_ready(self) -> bool:
        # The postmaster writes its state into line 8 of this file; pg_ctl waits for it too.
        try:
            lines = (self.home / "data" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _initialise(self, binaries: Path) -> None:
        account = _account()
        if account is not None:
            os.chown(self.home, account.pw_uid, account.pw_gid)
        password = self.home / "password"
        password.write_text(PASSWORD, encoding="utf-8")
        password.chmod(0o644)  # home itself is closed to others
        run_tool(
            [
                *(binaries / "initdb", "-D", self.home / "data", "-U", USER),
                *(f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8"),
                *("--locale=C", "--no-sync"),
            ],
            self.environment(),
            cwd=self.home,
            **self.popen_options(),
        )


def postgres_binaries() -> Path:
    """The directory with `initdb` and `postgres`: of PostgreSQL 15, which the tests are for, else
    the one on the PATH, else the newest.

    Raises MissingProgram if this machine has none.
    """
    candidates = []
    on_path = shutil.which("initdb")
    if on_path is not None:
        candidates.append(Path(on_path).resolve().parent)
    if DEBIAN.is_dir():  # Debian and Ubuntu keep them off PATH
        versions = [path for path in DEBIAN.iterdir() if re.fullmatch(r"\d+", path.name)]
        versions.sort(key=lambda path: int(path.name), reverse=True)
        candidates.extend(path / "bin" for path in versions)
    candidates.sort(key=lambda path: path != DEBIAN / VERSION / "bin")
    for directory in candidates:
        if (directory / "initdb").exists() and (directory / "postgres").exists():
            return directory
    raise MissingProgram("postgres", f"no PostgreSQL server is installed: {REMEDY}")


def _account() -> pwd.struct_passwd | None:
    """The account to run as, None for our own."""
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise MissingProgram(
        "postgres", f"PostgreSQL won't run as root and no account of {UNPRIVILEGED} exists"
    )


def _require_answer(url: str) -> None:
    """Fail early, without the password, if nobody listens at a given URL."""
    parts = urlsplit(url)
    if not parts.hostname:
        return  # a Unix socket
    address = (parts.hostname, parts.port or 5432)
    try:
        socket.create_connection(address, timeout=5).close()
    except OSError as error:
        raise ServerError(
            f"nobody answers at {address[0]}:{address[1]}, which {URL_VARIABLE} names: {error}. "
            "Start that server or unset the variable."
        ) from None
