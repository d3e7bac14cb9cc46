"""Answers to surveys: each kept once, of whom they may be, and figures of too few people never."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from pbmon.spool import entries
from pbmon.spool.entries import Feedback
from pbmon.store import tables
from pbmon.store.access import StoreError, open_writer, read
from pbmon.store.reader import Reader
from pbmon.store.schema import DAY
from pbmon.surveys import BUILT_IN, Comment, FeedbackSummary, Figures
from tests.store.test_writer import NOON, TRACE, portion

START, END = NOON - DAY, NOON + DAY
NPS, CSAT, TEXT = (BUILT_IN[name] for name in ("nps", "csat", "text"))


def answer(score=9, *, survey="nps", at=NOON, comment=None, user=None, session=None, trace=None,
           consent=None, key=None, segments=None):  # fmt: skip
    return entries.encode(
        Feedback(at, survey, score, comment, user, session, trace, consent, key, segments)
    )


def rows(engine):
    with engine.connect() as connection:
        return connection.execute(select(tables.feedback)).all()


@pytest.fixture
def writer(url):
    return open_writer(url, "opt-out")


def test_an_answer_becomes_a_row(writer, engine):
    written = writer.write(
        [portion(answer(8, comment="good\n“ä”", user="7", session="s", trace=TRACE,
                        segments={"plan": "pro"}), answer(None, survey="text", comment="hm"))]
    )  # fmt: skip
    assert (written.stored, written.dropped) == (2, {})
    first, second = sorted(rows(engine), key=lambda row: row.score is None)
    assert (first.survey, first.score, first.comment) == ("nps", 8, "good\n“ä”")
    assert (first.occurred_at, first.segments) == (NOON, {"plan": "pro"})
    assert first.trace_id == bytes.fromhex(TRACE)
    assert first.session == writer.session("s")
    with engine.connect() as connection:
        (person,) = connection.execute(select(tables.subjects)).all()
        of_sql = connection.exec_driver_sql(
            f"SELECT count(*) FROM {'pbmon.' if writer.is_postgresql else ''}feedback "
            "WHERE segments IS NULL"
        ).scalar()
    assert len(first.subject) == 16
    assert person.lookup == writer.lookup("7")
    assert (second.score, second.comment) == (None, "hm")
    assert (second.subject, second.session, second.trace_id, second.segments) == (None,) * 4
    assert of_sql == 1


def test_an_answer_with_an_id_is_kept_once_for_each_person(writer, engine):
    first = [
        answer(9, user="7", key="k"),
        answer(1, user="7", key="k"),
        answer(5, user="8", key="k"),
    ]
    written = writer.write([portion(*first, answer(3, key="k"))])
    assert (written.stored, written.dropped) == (3, {"duplicate": 1})
    again = writer.write([portion(answer(2, user="8", key="k"), answer(2, key="k"), source="2-b")])
    assert (again.stored, again.dropped) == (0, {"duplicate": 2})
    assert sorted(row.score for row in rows(engine)) == [3, 5, 9]
    without = writer.write([portion(answer(6), answer(6), source="3-c")])
    assert without.stored == 2


def test_from_the_outbox_it_comes_once(writer, engine):
    assert writer.write_outbox([(b"k" * 16, answer(4))]).stored == 1
    assert writer.write_outbox([(b"k" * 16, answer(4))]).dropped == {"duplicate": 1}
    assert len(rows(engine)) == 1


def test_consent_is_judged_before_a_row(url, engine):
    writer = open_writer(url, "opt-in")
    writer.write([portion(
        entries.encode(entries.Consent(NOON, "yes", "analytics", True)),
        entries.encode(entries.Consent(NOON, "no", "analytics", False)),
    )])  # fmt: skip
    written = writer.write([portion(
        answer(1, user="yes"), answer(2, user="no"), answer(3, user="unknown", session="s"),
        answer(4), answer(5, session="s"), answer(6, user="told", consent=True), source="2-b",
    )])  # fmt: skip
    assert (written.stored, written.dropped) == (4, {"consent": 2})
    found = {row.score: (row.subject is not None, row.session) for row in rows(engine)}
    assert found == {1: (True, None), 4: (False, None), 5: (False, None), 6: (True, None)}
    with engine.begin() as connection:
        connection.execute(
            tables.subjects.update()
            .where(tables.subjects.c.lookup == writer.lookup("yes"))
            .values(deleted_at=NOON, key=None)
        )
    later = open_writer(url, "opt-in").write([portion(answer(7, user="yes"), source="3-c")])
    assert (later.stored, later.dropped) == (0, {"deleted": 1})


def test_a_row_comes_with_its_place_or_not_at_all(writer, engine):
    both = [portion(answer(1)), portion(answer(2), source="2-b")]
    writer.write(both)
    with pytest.raises(Exception, match="1-a"):
        writer.write([both[0]])
    assert sorted(row.score for row in rows(engine)) == [1, 2]
    with engine.connect() as connection:
        counts = connection.execute(select(tables.checkpoints)).all()
    assert [(row.stored, row.dropped) for row in counts] == [(1, 0), (1, 0)]


# --- figures ---


def summary(url, engine, payloads, survey="nps", segment=None, **of):
    open_writer(url, "opt-out").write([portion(*payloads)])
    return Reader(engine).feedback(START, END, survey, of.get("is_", BUILT_IN["nps"]), segment)


def many(score, count, first, **more):
    return [answer(score, user=str(first + n), **more) for n in range(count)]


def test_an_nps_with_its_distribution(url, engine):
    payloads = many(10, 20, 0) + many(7, 12, 100) + many(2, 10, 200)
    payloads += [answer(0, user="900", at=END), answer(0, user="901", at=START - 1)]
    payloads += many(1, 30, 300, survey="csat")
    told = summary(url, engine, payloads)
    assert told == FeedbackSummary(
        "nps", 42, 100 * 10 / 42, 304 / 42,
        {**dict.fromkeys(range(11), 0), 10: 20, 7: 12, 2: 10}, [], {},
    )  # fmt: skip


def test_people_and_not_answers_are_counted(url, engine):
    payloads = [answer(9, user="7") for _ in range(30)]
    told = summary(url, engine, payloads)
    assert told.responses is None
    assert told.figure is None
    assert set(told.distribution.values()) == {None}
    # One more for each session and each answer of nobody; a session that is theirs is they.
    more = [answer(9, session=f"s{n}") for n in range(4)] + [answer(9) for _ in range(4)]
    more += [answer(9, session="s0")]
    open_writer(url, "opt-out").write([portion(*more, source="2-b")])
    assert Reader(engine).feedback(START, END, "nps", NPS, None).responses is None
    open_writer(url, "opt-out").write([portion(answer(9), source="3-c")])
    assert Reader(engine).feedback(START, END, "nps", NPS, None).responses == 40
    open_writer(url, "opt-out").write(
        [portion(entries.encode(entries.Link(NOON, "s1", "7")), source="4-d")]
    )
    assert Reader(engine).feedback(START, END, "nps", NPS, None).responses is None


def test_what_few_people_said_is_hidden_and_can_t_be_computed(url, engine):
    counts = {10: 20, 9: 15, 8: 30, 7: 11, 6: 14, 5: 12, 3: 2}
    payloads = [each for score, n in counts.items() for each in many(score, n, 100 * score)]
    told = summary(url, engine, payloads)
    assert (told.responses, told.figure, told.mean) == (104, 700 / 104, 802 / 104)
    # Number, mean and NPS are three sums; of 3, 5, 6 and 7 two of them would tell the last.
    unseen = {score for score, count in told.distribution.items() if count is None}
    assert unseen == {3, 5, 6, 7, 9}
    assert {score: n for score, n in told.distribution.items() if n} == {10: 20, 8: 30}


def test_of_fewer_than_ten_nothing_is_told(url, engine):
    told = summary(url, engine, many(10, 9, 0, comment="we are few"))
    assert told == FeedbackSummary("nps", None, None, None, dict.fromkeys(range(11)), [], {})


def test_csat_and_texts(url, engine):
    payloads = many(5, 12, 0, survey="csat") + many(4, 10, 100, survey="csat")
    payloads += many(1, 11, 200, survey="csat")
    told = summary(url, engine, payloads, "csat", is_=CSAT)
    assert (told.responses, told.figure, told.mean) == (33, 100 * 22 / 33, 111 / 33)
    assert told.distribution == {1: 11, 2: 0, 3: 0, 4: 10, 5: 12}
    texts = [answer(None, survey="text", user=str(n), at=NOON + n, comment=f"no. {n}")
             for n in range(25)]  # fmt: skip
    open_writer(url, "opt-out").write([portion(*texts, source="2-b")])
    told = Reader(engine).feedback(START, END, "text", TEXT, None)
    assert (told.responses, told.figure, told.mean, told.distribution) == (25, None, None, {})
    assert told.comments == [Comment(NOON + n, None, f"no. {n}") for n in range(24, 4, -1)]


def test_segments_with_the_smallest_hidden_beside_a_single_small_one(url, engine):
    payloads = many(10, 20, 0, segments={"plan": "pro"}) + many(
        8, 15, 100, segments={"plan": "free"}
    )
    payloads += many(0, 12, 200) + many(9, 3, 300, segments={"plan": "team"})
    told = summary(url, engine, payloads, segment="plan")
    assert told.segments == {
        "pro": Figures(20, 100.0, 10.0),
        "free": Figures(15, 0.0, 8.0),
        None: Figures(None, None, None),
        "team": Figures(None, None, None),
    }
    told = Reader(engine).feedback(START, END, "nps", NPS, "region")
    assert told.segments == {None: Figures(50, told.figure, told.mean)}


def test_a_store_that_is_not_there_is_one_line(empty_url):
    from pbmon.store.access import open_engine

    with pytest.raises(StoreError, match="no tables of pbmon yet"):
        read(open_engine(empty_url))
