"""One leads of all that share a store; the role goes with the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from sqlalchemy import text

from pbmon.store.access import open_engine, open_leadership
from tests.fresh import environment
from tests.stack.process import wait_until

HOLDER = """
import sys
from pbmon.store.access import open_leadership
role = open_leadership(sys.argv[1])
print(role.take(), flush=True)
sys.stdin.read()
"""


def test_one_leads_until_its_process_ends(url):
    role = open_leadership(url)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url], env=environment(), stdin=-1, stdout=-1, text=True
    )
    assert holder.stdout.readline() == "True\n"
    assert not role.take()
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    wait_until(role.take, "the role")
    assert role.take()
    assert not open_leadership(url).take()


def test_a_forked_child_does_not_lead(url):
    role = open_leadership(url)
    assert role.take()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        role.forget()
        os.write(writer, b"yes" if open_leadership(url).take() else b"no")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 3) == b"no"
    assert role.take()


def test_whose_connection_is_lost_leads_no_more(postgresql):
    url = postgresql.url.render_as_string(hide_password=False)
    role, other = open_leadership(url), open_leadership(url)
    assert role.take()
    admin = open_engine(url)
    with admin.begin() as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        )
    admin.dispose()
    wait_until(other.take, "the role")
    try:
        assert not role.take()
    except Exception as error:
        assert type(error).__name__ == "StoreError"
    assert not role.take()
