"""What is told of a statement: readable where it is certain, and never a value."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pbmon.telemetry import statements
from pbmon.telemetry.statements import Allowance, Statement, describe

SYSTEMS = ("postgresql", "sqlite", "mysql", "microsoft.sql_server", "oracle.db", "some_db")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No memory of other tests, and as much tokenising as a test needs."""
    monkeypatch.setattr(statements, "_summaries", set())
    monkeypatch.setattr(statements, "allowance", Allowance(1e12, 1e12))
    statements._describe_short.cache_clear()
    statements._describe_long.cache_clear()


# --- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "sql", "text"),
    [
        ("postgresql", "SELECT 'a''b', E'a\\'b', U&'\\0061', B'101', X'1f', N'n'",
         "SELECT ?, ?, ?, ?, ?, ?"),
        ("postgresql", "SELECT $$it's$$, $tag$a $$ b$tag$", "SELECT ?, ?"),
        ("postgresql", "SELECT 1, -1.5, .5, 1., 1e-5, 0x1F, 0o17, 0b11, 1_000_000",
         "SELECT ?, -?, .?, ?, ?, ?, ?, ?, ?"),
        ("postgresql", "SELECT %s, %(name)s, $1, :name, ?", "SELECT %s, %(name)s, $1, :name, ?"),
        ("postgresql", "SELECT a::int, b->>'k', c @> '{1}', d[1:2], x %% 2",
         "SELECT a::int, b->>?, c @> ?, d[?:?], x %% ?"),
        ("postgresql", 'SELECT "My Column" FROM "T"', 'SELECT "My Column" FROM "T"'),
        ("postgresql", "SELECT 1 -- one\n  , /* two */ 2", "SELECT ? , ?"),
        ("postgresql", "SELECT\n\t1\r\n FROM   t;", "SELECT ? FROM t;"),
        ("postgresql", "SELECT * FROM t WHERE a IN (1, 2, 'x')", "SELECT * FROM t WHERE a IN (?)"),
        ("postgresql", "a IN (%s, %s) OR b IN (:a_1, :a_2)", "a IN (%s) OR b IN (:a_1)"),
        ("postgresql", "(a, b) IN ((1, 2), (3, 4))", "(a, b) IN ((?, ?))"),
        ("postgresql", "a IN (SELECT 1, 2)", "a IN (SELECT ?, ?)"),
        ("postgresql", "a IN (1, b, 2, lower('x'), lower('y'))", "a IN (?, b, lower(?))"),
        ("postgresql", "a = ANY(ARRAY[1, 2])", "a = ANY(ARRAY[?])"),
        ("postgresql", "INSERT INTO t VALUES (1, now()), (2, now()) RETURNING id",
         "INSERT INTO t VALUES (?, now()) RETURNING id"),
        ("postgresql", "EXPLAIN SELECT 'a'", "EXPLAIN SELECT ?"),
        ("postgresql", "CALL f('a', 1)", "CALL f(?, ?)"),
        ("postgresql", "SET statement_timeout = '5s'", "SET statement_timeout = ?"),
        ("postgresql", "ALTER ROLE u PASSWORD 'hunter2'", "ALTER ROLE u PASSWORD ?"),
        ("postgresql", "SELECT 'ü', 'ßtraße', größe FROM maße", "SELECT ?, ?, größe FROM maße"),
        ("sqlite", "SELECT x'1f', 'C:\\', [a b], `c`", "SELECT ?, ?, [a b], `c`"),
        ("sqlite", "SELECT ?1, :a, @b, $c, ?", "SELECT ?1, :a, @b, $c, ?"),
        ("sqlite", "SELECT 'x'1", "SELECT ??"),
        # SQLite takes "x" for a string where it is no column: kept only where it can't be one.
        ("sqlite", 'SELECT "t"."a" FROM "t" WHERE "b" = "secret"',
         'SELECT "t"."a" FROM "t" WHERE ? = ?'),
        ("sqlite", 'INSERT INTO "t" ("a", "b") VALUES ("x", 1)',
         'INSERT INTO "t" ("a", "b") VALUES (?, ?)'),
        ("sqlite", 'UPDATE "t" SET "a" = "x"', 'UPDATE "t" SET "a" = ?'),
        ("sqlite", "SELECT [it's], [a]", "SELECT ?, [a]"),
        ("postgresql", 'SELECT "say ""hi""", "a"', 'SELECT ?, "a"'),
        ("postgresql", 'SELECT "' + "x" * 64 + '"', "SELECT ?"),
        # Written in the wrong quotes: a value more likely than a name.
        ("postgresql", 'UPDATE t SET email = "bob@x.com"', "UPDATE t SET email = ?"),
        ("postgresql", 'SELECT "a.b-c $1", "+49 1", "{x}"', 'SELECT "a.b-c $1", ?, ?'),
        ("sqlite", 'INSERT INTO "s"."t" AS "u" ("a") SELECT 1',
         'INSERT INTO "s"."t" AS "u" ("a") SELECT ?'),
        ("sqlite", 'INSERT INTO t VALUES ("secret") SELECT 1', "INSERT INTO t VALUES (?) SELECT ?"),
        ("sqlite", 'INSERT INTO t SELECT ("secret") VALUES (1)',
         "INSERT INTO t SELECT (?) VALUES (?)"),
        ("sqlite", 'INSERT INTO VALUES ("secret") SELECT 1', "INSERT INTO VALUES (?) SELECT ?"),
        ("mysql", 'INSERT INTO t VALUE ("secret") SELECT 1', "INSERT INTO t VALUE (?) SELECT ?"),
        ("mysql", 'SELECT "a", \'b\', `c` # d', "SELECT ?, ?, `c`"),
        ("mysql", "SELECT _utf8'a', 0x1F, b'01'", "SELECT _utf8?, ?, ?"),
        ("mysql", "SELECT 5--3", "SELECT ?--?"),
        ("mysql", "SELECT 1 --'a\nb'", "SELECT ? --?"),
        ("some_db", "SELECT 0x1F, 'a', \"b\".c", 'SELECT ?, ?, "b".c'),
    ],
)  # fmt: skip
def test_literals_become_question_marks(system, sql, text):
    assert describe(sql, system).text == text


@pytest.mark.parametrize(
    ("system", "sql", "summary"),
    [
        ("postgresql", "SELECT 'a\\', b' FROM t", "SELECT"),  # standard_conforming_strings?
        ("mysql", "SELECT 'a\\', b' FROM t", "SELECT"),  # NO_BACKSLASH_ESCAPES?
        ("postgresql", "SELECT 'a", "SELECT"),
        ("postgresql", "SELECT $$a", "SELECT"),
        ("postgresql", 'SELECT "a', "SELECT"),
        ("postgresql", "SELECT 'a'b FROM t", "SELECT"),
        ("postgresql", "SELECT /* a /* b */ c */ 1", "SELECT"),
        ("postgresql", "SELECT {# 'a #} 1", "SELECT"),
        ("postgresql", "SELECT `a`", "SELECT"),
        ("postgresql", "SELECT $a FROM t", "SELECT"),
        ("some_db", "SELECT $$secret$$", "SELECT"),
        ("some_db", "SELECT q'[it's]'", "SELECT"),
        ("some_db", "SELECT '''a ' secret ' b'''", "SELECT"),
        ("postgresql", "INSERT INTO s.t (a) VALUES ('", "INSERT s.t"),
        ("postgresql", 'UPDATE "t" SET a = \'', "UPDATE t"),
        ("postgresql", "-- note\nDELETE FROM t WHERE a = '", "DELETE t"),
        ("postgresql", "COPY t FROM '", "COPY t"),
        ("postgresql", "SELECT '\udcff', x\udcff FROM t", "SELECT"),
        ("postgresql", b"SELECT '\xff' FROM t\xff", "SELECT"),
        ("postgresql", "INSERT INTO 'secret' ('", "INSERT"),
        ("postgresql", "secret 'x", ""),
    ],
)
def test_in_doubt_there_is_no_text(system, sql, summary):
    told = describe(sql, system)
    assert (told.text, told.summary) == (None, summary)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("sql", [None, "", "  \n", b"", "--", "/**/", ";", 5, object(), ["SELECT"]])
def test_nothing_is_told_of_nothing(system, sql):
    told = describe(sql, system)
    assert (told.summary, told.operation, told.collection) == ("", None, None)
    assert not (told.text or "").strip(";")


def test_bytes_and_subclasses_of_str_are_read(monkeypatch):
    class Odd(str):
        __slots__ = ()

        def __hash__(self):
            raise RuntimeError

        def __eq__(self, other):
            raise RuntimeError

    expected = Statement("SELECT ? FROM t", "SELECT t", "SELECT", "t")
    assert describe(b"SELECT 1 FROM t", "postgresql") == expected
    assert describe(bytearray(b"SELECT 1 FROM t"), "postgresql") == expected
    assert describe(Odd("SELECT 1 FROM t"), "postgresql") == expected


def test_a_text_is_cut_at_its_limit():
    columns = ", ".join(f"column_{n}" for n in range(1000))
    text = describe(f"SELECT {columns} FROM t", "postgresql").text
    assert len(text) <= statements.LIMIT_TEXT
    assert text.endswith("…")


def test_a_huge_statement_has_a_summary_only():
    values = ", ".join(["('secret')"] * 100_000)
    told = describe(f"INSERT INTO t (a) VALUES {values}", "postgresql")
    assert told == Statement(None, "INSERT t", "INSERT", "t")


def test_a_failure_is_told_without_the_statement(monkeypatch, caplog):
    monkeypatch.setattr("pbmon.signals._last_told", {})
    monkeypatch.setattr(statements, "take_apart", lambda *_: 1 / 0)
    assert describe("SELECT 'secret'", "postgresql") == statements.NOTHING
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


# --- summary ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "summary", "operation", "collection"),
    [
        ("SELECT * FROM accounts", "SELECT accounts", "SELECT", "accounts"),
        ("select a from b, c.d x, e", "SELECT b c.d e", "SELECT", None),
        ("SELECT * FROM a JOIN b ON true LEFT JOIN a c USING (x), d", "SELECT a b d", "SELECT",
         None),
        ("INSERT INTO transactions VALUES (1)", "INSERT transactions", "INSERT", "transactions"),
        ("INSERT INTO a (x) SELECT x FROM b", "INSERT a SELECT b", "INSERT", None),
        ("INSERT INTO a VALUES (1) ON CONFLICT (x) DO UPDATE SET y = 2", "INSERT a", "INSERT",
         "a"),
        ("UPDATE a SET x = 1 FROM b", "UPDATE a b", "UPDATE", None),
        ("DELETE FROM a USING b", "DELETE a b", "DELETE", None),
        ("SELECT x FROM (SELECT * FROM a) q JOIN b ON true", "SELECT SELECT a b", "SELECT", None),
        ("WITH q AS (SELECT * FROM a) SELECT * FROM q", "SELECT a SELECT", "SELECT", "a"),
        ("WITH q AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM q",
         "DELETE a INSERT b SELECT", "INSERT", None),
        ("SELECT EXTRACT(day FROM t) FROM a", "SELECT a", "SELECT", "a"),
        ("SELECT trim(both 'x' FROM t), a IS DISTINCT FROM b FROM c", "SELECT c", "SELECT", "c"),
        ("SELECT * FROM generate_series(1, 5)", "SELECT generate_series", "SELECT", None),
        ("SELECT * FROM ONLY a, LATERAL f(1) FOR UPDATE", "SELECT a f", "SELECT", "a"),
        ("SELECT 1; UPDATE a SET x = 1", "SELECT UPDATE a", "SELECT", "a"),
        ("(SELECT 1 FROM a) UNION (SELECT 2 FROM b)", "SELECT a SELECT b", "SELECT", None),
        ("CREATE TABLE IF NOT EXISTS a (b int REFERENCES c)", "CREATE TABLE a", "CREATE", "a"),
        ("CREATE UNIQUE INDEX i ON a (b)", "CREATE INDEX i", "CREATE", None),
        ("DROP TABLE a", "DROP TABLE a", "DROP", "a"),
        ("TRUNCATE a", "TRUNCATE a", "TRUNCATE", "a"),
        ("TRUNCATE TABLE a", "TRUNCATE a", "TRUNCATE", "a"),
        ("GRANT SELECT, UPDATE ON a TO b", "GRANT", "GRANT", None),
        ("MERGE INTO a USING b ON true WHEN MATCHED THEN DELETE", "MERGE a b", "MERGE", None),
        ("COPY a (b) FROM STDIN", "COPY a", "COPY", "a"),
        ("COPY (SELECT * FROM a) TO STDOUT", "COPY SELECT a", "COPY", "a"),
        ("EXPLAIN ANALYZE SELECT * FROM a", "EXPLAIN SELECT a", "EXPLAIN", "a"),
        ("BEGIN", "BEGIN", "BEGIN", None),
        ("CALL proc(1)", "CALL proc", "CALL", None),
        ('SELECT * FROM "a", "odd name; it", "b"', "SELECT a b", "SELECT", None),
        ("hunter2", "", None, None),
    ],
)  # fmt: skip
def test_a_summary_names_operations_and_tables(sql, summary, operation, collection):
    told = describe(sql, "postgresql")
    assert (told.summary, told.operation, told.collection) == (summary, operation, collection)


def test_a_summary_ends_at_a_whole_name_within_its_limit():
    names = [f"table_{n:03}" for n in range(100)]
    summary = describe("SELECT * FROM " + ", ".join(names), "postgresql").summary
    assert 240 < len(summary) <= statements.LIMIT_SUMMARY
    assert summary.split()[1:] == names[: len(summary.split()) - 1]


def test_distinct_summaries_are_bounded():
    told = [describe(f"SELECT * FROM t{n}", "postgresql") for n in range(600)]
    assert told[499] == Statement("SELECT * FROM t499", "SELECT t499", "SELECT", "t499")
    assert told[500] == Statement("SELECT * FROM t500", "SELECT", "SELECT", None)
    assert describe("SELECT 1 FROM t7", "postgresql").summary == "SELECT t7"
    assert len({t.summary for t in told}) == 501


# --- cost ---------------------------------------------------------------------------------------


def test_a_known_text_is_not_tokenised_again(monkeypatch):
    first = describe("SELECT 1", "postgresql")
    monkeypatch.setattr(statements, "take_apart", lambda *_: 1 / 0)
    assert describe("SELECT 1", "postgresql") is first


def test_unique_literals_are_bounded_in_memory_and_time(monkeypatch):
    monkeypatch.setattr(statements, "allowance", Allowance(rate=0, most=40_000))
    told = [describe(f"SELECT a FROM t WHERE b = 'secret {n}'", "sqlite") for n in range(3000)]
    assert told[0].text == "SELECT a FROM t WHERE b = ?"
    assert told[-1] == Statement(None, "SELECT", "SELECT")
    for cached in (statements._describe_short, statements._describe_long):
        assert cached.cache_info().currsize <= cached.cache_info().maxsize <= 1024


def test_the_allowance_comes_back_with_time(monkeypatch):
    now_s = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    allowance = Allowance(rate=10, most=100)
    assert [allowance.take(60), allowance.take(60)] == [True, False]
    now_s[0] = 2.0
    assert allowance.take(60)
    now_s[0] = 1000.0
    assert [allowance.take(100), allowance.take(1)] == [True, False]


# --- whatever is put in -------------------------------------------------------------------------

TEMPLATES = (
    "SELECT {} FROM accounts",
    "SELECT * FROM accounts WHERE name = {} AND id IN ({}, 3)",
    "INSERT INTO accounts (name) VALUES ({}), ({})",
    "UPDATE accounts SET name={}WHERE id=5",
    "SELECT name /* {} */ FROM accounts WHERE name LIKE {}",
    "WITH q AS (SELECT {} AS a) DELETE FROM accounts WHERE name={}",
    "EXPLAIN SELECT {}, ({})",
    "SELECT {} -- {}",
)
WORDS = frozenset(
    re.findall(r"\w+", " ".join(TEMPLATES).upper()) + ["N", "E", "B", "X", "U", "UTF8", "TAG"]
)


def quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def escaped(value: str) -> str:
    return "E'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


LITERALS = {
    "postgresql": (quoted, escaped, lambda v: f"$tag${v.replace('$', '')}$tag$",
                   lambda v: f"N{quoted(v)}", lambda v: "U&" + quoted(v.replace("\\", "\\\\"))),
    "sqlite": (quoted, lambda v: '"' + v.replace('"', '""') + '"',
               lambda v: "x'" + v.encode("utf-8", "replace").hex() + "'"),
    "mysql": (quoted, lambda v: '"' + v.replace('"', '""') + '"',
              lambda v: "'" + v.replace("\\", "\\\\").replace("'", "\\'") + "'"),
    "some_db": (quoted,),
}  # fmt: skip


@st.composite
def statement(draw: st.DrawFn) -> tuple[str, str, str]:
    """(system, statement, the value in it)"""
    system = draw(st.sampled_from(sorted(LITERALS)))
    value = draw(
        st.text(st.characters(exclude_characters="\0"), max_size=30)
        | st.text("ab'\"\\$-/*#`[]{}:;%?,() \n\r\té", max_size=20)
    )
    literal = draw(st.sampled_from(LITERALS[system]))(value)
    template = draw(st.sampled_from(TEMPLATES))
    return system, template.replace("{}", literal), value


def leaks(told: Statement, value: str) -> list[str]:
    """The words of a value that are in what is told, other than those of the templates."""
    shown = set(re.findall(r"\w+", f"{told.text or ''} {told.summary}".upper()))
    return sorted((set(re.findall(r"\w+", value.upper())) & shown) - WORDS)


@settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(statement())
def test_no_part_of_a_string_is_told(case):
    system, sql, value = case
    told = describe(sql, system)
    assert leaks(told, value) == []
    if told.text is not None:
        assert "'" not in told.text


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(SYSTEMS),
    st.sampled_from(TEMPLATES),
    st.one_of(
        st.integers().map(str),
        st.floats(allow_nan=False, allow_infinity=False).map(repr),
        st.decimals(allow_nan=False, allow_infinity=False).map(str),
        st.integers(0).map(hex),
        st.integers(0).map(bin),
        st.integers(0).map(lambda n: f"{n:_}"),
    ),
)
def test_no_digit_of_a_number_is_told(system, template, number):
    told = describe(template.replace("{}", number), system)
    assert not re.search(r"\d", f"{told.text or ''} {told.summary}")


@settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(
        st.text(max_size=80),
        st.binary(max_size=80),
        st.text("SELECT FROM'\"$`-/*#\\(),;{}[]%?:1aé\n\ud800", max_size=60),
    ),
    st.sampled_from(SYSTEMS),
)
def test_anything_at_all_is_taken(sql, system):
    told = describe(sql, system)
    assert "'" not in (told.text or "") + told.summary
    assert len(told.summary) <= statements.LIMIT_SUMMARY
    told.summary.encode()
    (told.text or "").encode()
