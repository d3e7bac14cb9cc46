from __future__ import annotations

from pbmon.spool import inspection, ledger
from tests.spool.spools import fill


def test_it_shows_what_waits_where_and_takes_nothing(spools, home):
    living, dead = spools.make(), spools.make()
    fill(living, "logs", 3)
    fill(dead, "traces", 2)
    spools.crash(dead)
    seen = {each.name: each for each in inspection.look(home.path)}
    assert set(seen) == {living.directory.name, dead.directory.name}
    alive, gone = seen[living.directory.name], seen[dead.directory.name]
    assert (alive.running, gone.running) == (True, False)
    assert alive.waiting == {"traces": 0, "metrics": 0, "logs": 3, "events": 0}
    assert gone.waiting == {"traces": 2, "metrics": 0, "logs": 0, "events": 0}
    assert alive.rows["logs"] == dict.fromkeys(ledger.FIELDS, 0) | {"accepted": 3}
    assert gone.size == home.segment_size + ledger.SIZE + 32 * 1024
    assert spools.adopt_one().waiting("traces") == 2


def test_what_cant_be_read_is_no_error(spools, home, tmp_path):
    assert inspection.look(tmp_path / "missing") == []
    (home.path / "foreign").mkdir()
    directory = spools.crash(spools.make())
    (directory / ledger.NAME).write_bytes(b"garbage")
    (seen,) = inspection.look(home.path)
    assert (seen.name, seen.running, seen.waiting) == (directory.name, False, {})
