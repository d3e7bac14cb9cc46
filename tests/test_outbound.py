"""Calls of our own: how long to wait. Where they may go and what they believe is tested with those
who call, in tests/delivery and tests/rates."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from pbmon import outbound


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("7", 7.0), ("0", 0.0), ("1.5", 1.5), (" 2 ", 2.0), ("-5", 0.0), ("3601", 3600.0),
        ("1e999", 3600.0), ("inf", 3600.0), ("-inf", 0.0), ("nan", None), ("", None),
        ("soon", None), ("Wed, 99 Foo 2026", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 9999 07:28:00 GMT", 3600.0), ("Wed, 21 Oct 99999 07:28:00 GMT", None),
        (None, None),
    ],
)  # fmt: skip
def test_retry_after(value, wait_s):
    assert outbound.retry_after_s(value) == wait_s


def test_retry_after_as_a_date_is_the_time_until_then():
    wait_s = outbound.retry_after_s(formatdate(time.time() + 60, usegmt=True))
    assert 50 < wait_s <= 60


def test_a_secret_is_read_from_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("of the file\n", encoding="utf-8")
    monkeypatch.setenv("TOKEN", "of the variable")
    monkeypatch.delenv("NOT_SET", raising=False)
    assert outbound.secret_of("token", f"file:{tmp_path}/token") == "of the file"
    assert outbound.secret_of("token", "env:TOKEN") == "of the variable"
    with pytest.raises(ValueError, match="token is env:NOT_SET, which is not set"):
        outbound.secret_of("token", "env:NOT_SET")
    with pytest.raises(ValueError, match=r"token: none can't be read \(FileNotFoundError\)"):
        outbound.secret_of("token", "file:none")
