"""The store's times as others read them, to the microsecond."""

from __future__ import annotations

import pytest

from pbmon.moments import instant, rfc3339


@pytest.mark.parametrize(
    ("occurred_at", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (1_795_643_880_000_001, "2026-11-25T21:58:00.000001Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_moment_is_exact(occurred_at, text):
    assert rfc3339(occurred_at) == text


def test_a_moment_is_in_utc_and_as_precise_as_asked():
    assert instant(1_795_643_880_000_001).isoformat() == "2026-11-25T21:58:00.000001+00:00"
    assert rfc3339(1_795_643_880_999_001, "seconds") == "2026-11-25T21:58:00Z"
    with pytest.raises(OverflowError):
        instant(2**63)
