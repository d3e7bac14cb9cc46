"""delete_user and export_user as the application calls them."""

from __future__ import annotations

import pytest

import pbmon
from pbmon import runtime
from tests.fresh import python

CALLS = {"delete_user": pbmon.delete_user, "export_user": pbmon.export_user}


@pytest.mark.parametrize("call", CALLS)
def test_before_configure_it_says_what_to_do(call, monkeypatch):
    monkeypatch.setattr(runtime.active, "eraser", runtime.Runtime().eraser)
    with pytest.raises(pbmon.StoreError, match=r"call pbmon.configure\(\) first"):
        CALLS[call](7)


@pytest.mark.parametrize("call", CALLS)
def test_an_id_is_checked(call):
    for wrong in (True, None, 1.5, b"7"):
        with pytest.raises(TypeError, match="user_id must be str or int"):
            CALLS[call](wrong)
    for wrong in ("", "x" * 256):
        with pytest.raises(ValueError, match="1 to 255 characters"):
            CALLS[call](wrong)


def test_the_whole_in_one_process(tmp_path):
    python(
        """
        import pbmon
        pbmon.configure(consent="opt-out")
        assert pbmon.delete_user("never seen").counts == {}
        for n in range(3):
            pbmon.track("bought", {"n": n}, user_id=7)
        with pbmon.context(user_id=7):
            pbmon.track_revenue("12.50", "USD", transaction_id="t-1")
        found = pbmon.export_user(7)
        assert [row["properties"]["n"] for row in found["tables"]["events"]] == [0, 1, 2]
        before = pbmon.revenue_metrics("day").by_currency["USD"]
        receipt = pbmon.delete_user(7, timeout_s=60)
        assert receipt.counts == {
            "events": 3, "subject_activity": 1, "subject_days": 1, "transactions": 1,
        }, receipt
        assert set(receipt.outstanding) == {"disk"}
        assert not receipt.is_finished
        assert pbmon.delete_user(7) == receipt
        assert pbmon.revenue_metrics("day").by_currency["USD"] == before
        assert str(before.gross) == "12.50"
        pbmon.track("bought", user_id=7)
        assert pbmon.flush(60)
        assert pbmon.export_user(7)["tables"]["events"] == []
        assert pbmon.user_growth is not None
        """,
        PBMON_STATE_DIR=str(tmp_path / "state"), OTEL_LOGS_EXPORTER="none",
    )  # fmt: skip


def test_a_store_that_is_away_is_said_with_the_remedy(tmp_path):
    python(
        """
        import pbmon
        pbmon.configure(store_url="postgresql://u:secret@127.0.0.1:1/none")
        for call in (pbmon.delete_user, pbmon.export_user):
            try:
                call(7)
            except pbmon.StoreError as error:
                assert "nobody listens there" in str(error), error
                assert "secret" not in str(error)
            else:
                raise SystemExit("it was said to be done")
        """,
        PBMON_STATE_DIR=str(tmp_path / "state"), OTEL_LOGS_EXPORTER="none",
    )  # fmt: skip
