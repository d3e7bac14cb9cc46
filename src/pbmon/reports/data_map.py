"""What is held and sent of people: why, on what basis, where it goes, how long, who can undo it.

The one source of docs/privacy.md and of `pbmon privacy map`: the data map of an impact assessment
(GDPR, article 35), and most of a record of processing (article 30). Every table of the store and
every attribute of the catalogue has its place here; a test fails for one that has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any, Literal

from pbmon import catalog, privacy
from pbmon.catalog import Attribute
from pbmon.purposes import ANALYTICS, SHARING
from pbmon.reports import page
from pbmon.settings import Settings
from pbmon.store import holdings, tables
from pbmon.store.holdings import Fate

Leads = Literal["nobody", "a pseudonym", "perhaps somebody", "a person"]
"""Whom the data leads to. A pseudonym: somebody, by a key that only the store has and that a
deletion destroys. Perhaps: nobody by itself, unless the application writes it in."""

DELETION = "deletion"
RETENTION = "its retention"


@dataclass(frozen=True, slots=True)
class Holding:
    """Data of one kind in one place."""

    place: str
    content: str
    leads_to: Leads
    purpose: str
    basis: str
    """Legal basis, as GDPR numbers them."""
    goes_to: str
    kept: str
    undone_by: str
    """What ends it before its time."""


_RUNNING = "run the service"
_KNOWING = "know how the product is used"
_BOOKS = "keep the books"
_PROVING = "honour and prove decisions and deletions"

_INTEREST = "legitimate interest, art. 6(1)(f)"
_NOT_PERSONAL = "not personal data"
_DUTY = "legal obligation, art. 6(1)(c)"
_HERE = "nowhere: it stays on this host"
_STORE = "nowhere: it stays in the store"

_BASES = {
    "opt-in": "consent, art. 6(1)(a)",
    "opt-out": f"{_INTEREST}, until they object",
    "not-required": f"{_INTEREST}, and not asked",
}
_FOREVER = "for good"


def holdings_of(settings: Settings) -> list[Holding]:
    """All of it, as these settings have it; what leads to somebody first."""
    found = [*_sent(settings), *_on_this_host(settings), *_stored(settings)]
    order = ("a person", "perhaps somebody", "a pseudonym", "nobody")
    return sorted(found, key=lambda each: order.index(each.leads_to))


# --- what is sent ---


def _sent(settings: Settings) -> Iterator[Holding]:
    receiver = f"receiver of OTLP at {privacy.mask_url(settings.endpoint)}"
    as_there = "as its storage keeps it"
    texts = (
        "addresses, cards, IBANs, credentials and values of queries taken out of texts"
        if settings.scrub
        else "texts as they are written"
    )
    captured = (*settings.request_headers, *settings.response_headers)
    extras = [
        *(["addresses of clients"] if settings.client_address else []),
        *([f"headers {', '.join(captured)}"] if captured else []),
        *(["pseudonyms of users who agree"] if settings.user_spans else []),
    ]
    yield Holding(
        "spans", "; ".join(["requests and statements without values", texts, *extras]),
        "a person" if settings.client_address else "perhaps somebody",
        _RUNNING, _INTEREST, receiver, as_there, RETENTION,
    )  # fmt: skip
    yield Holding(
        "metrics", "counts and durations by route, statement, feature or event; no id",
        "nobody", _RUNNING, _NOT_PERSONAL, receiver, as_there, RETENTION,
    )  # fmt: skip
    if settings.logs:
        yield Holding(
            "log records", f"of the application; {texts}", "perhaps somebody",
            _RUNNING, _INTEREST, receiver, as_there, RETENTION,
        )  # fmt: skip
    for name in sorted(settings.destinations):
        yield Holding(
            f"destination {name}", "events, by a pseudonym of its own", "a pseudonym", _KNOWING,
            _BASES[settings.consent[SHARING]], name, "as it keeps them",
            f"{DELETION}, which asks it to; withdrawal, for what has not left",
        )  # fmt: skip
    for name in sorted(settings.alerts.sinks):
        yield Holding(
            f"alert sink {name}", "type, place and counts of errors; no message, no person",
            "nobody", _RUNNING, _NOT_PERSONAL, name, "as it keeps them", RETENTION,
        )  # fmt: skip


# --- what waits ---


def _on_this_host(settings: Settings) -> Iterator[Holding]:
    yield Holding(
        "journals of events", "what track() and its like were given, with the application's own "
        "ids, until it is stored; files of mode 0600", "a person", _KNOWING,
        _BASES[settings.consent[ANALYTICS]], "the store, under a pseudonym",
        "until the segment is full or its process ends, and all of it is stored", DELETION,
    )  # fmt: skip
    yield Holding(
        "spool of telemetry", "spans, metrics and log records that no receiver has taken yet",
        "perhaps somebody", _RUNNING, _INTEREST, "where they are sent", "an hour at most",
        "delivery",
    )  # fmt: skip
    if settings.requests_file is not None:
        yield Holding(
            "requests_file", "method, route and duration of each request", "nobody", _RUNNING,
            _NOT_PERSONAL, _HERE, _FOREVER, "removing the file",
        )  # fmt: skip


# --- the store ---


@dataclass(frozen=True, slots=True)
class _Kept:
    """Of a table: why, on what basis (a purpose of consent, or in words), and until when (a
    setting, or in words)."""

    content: str
    purpose: str
    basis: str
    until: str


_t = tables
_KEPT: Mapping[Any, _Kept] = {
    _t.events: _Kept("what people did, with properties and segments", _KNOWING, ANALYTICS,
                     "events_retention_days"),
    _t.feedback: _Kept("scores, and comments without what must not be in them", _KNOWING,
                       ANALYTICS, "feedback_retention_days"),
    _t.exposures: _Kept("which variant somebody met first", _KNOWING, ANALYTICS,
                        "exposures_retention_days"),
    _t.sessions: _Kept("whose a session turned out to be", _KNOWING, ANALYTICS,
                       "sessions_retention_days"),
    _t.subject_days: _Kept("days on which somebody was active", _KNOWING, ANALYTICS,
                           "activity_retention_days"),
    _t.subject_activity: _Kept("the first and the last of these days", _KNOWING, ANALYTICS,
                               _FOREVER),
    _t.error_people: _Kept("whom an error met", _RUNNING, ANALYTICS, "errors_retention_days"),
    _t.transactions: _Kept("charges, refunds and the like", _BOOKS, _DUTY, _FOREVER),
    _t.deliveries: _Kept("events that are to go to a destination", _KNOWING, SHARING,
                         "until it has them"),
    _t.dead_letters: _Kept("events that a destination refuses", _KNOWING, SHARING,
                           "dead_letters_retention_days"),
    _t.consents: _Kept("decisions, with version and time", _PROVING, _DUTY, _FOREVER),
    _t.subjects: _Kept("an HMAC of the user's id, the key of their pseudonyms, their last "
                       "decisions", _PROVING, _DUTY, _FOREVER),
    _t.deletions: _Kept("receipts of deletions", _PROVING, _DUTY, _FOREVER),
}  # fmt: skip
"""Of each table that leads to somebody."""

_UNDONE = {
    Fate.REMOVED: DELETION,
    Fate.UNLINKED: f"{DELETION}: the rows stay, and are nobody's",
    Fate.TOMBSTONE: f"{DELETION}: what stays is that somebody was deleted",
}


def _stored(settings: Settings) -> Iterator[Holding]:
    for held in holdings.HELD:
        kept = _KEPT[held.table]
        basis = settings.consent.get(kept.basis)
        yield Holding(
            f"table {held.table.name}", kept.content, "a pseudonym", kept.purpose,
            kept.basis if basis is None else _BASES[basis], _STORE,
            _until(settings, kept.until), _UNDONE[held.fate],
        )  # fmt: skip
    names = ", ".join(sorted(table.name for table in holdings.OF_NOBODY))
    yield Holding(
        "the other tables", f"sums, positions and names of the application's: {names}", "nobody",
        _RUNNING, _NOT_PERSONAL, _STORE, "see docs/deletion.md", RETENTION,
    )  # fmt: skip


def _until(settings: Settings, name: str) -> str:
    if not name.endswith("_days"):
        return name
    days: int | None = getattr(settings, name)
    return f"{_FOREVER} ({name} is unset)" if days is None else f"{days} days ({name})"


# --- attributes ---

SPEAKING: Mapping[Attribute, str] = {
    catalog.PATH: "ids and whatever else stands in a path; addresses and the like are taken out",
    catalog.QUERY: "names of parameters; no value",
    catalog.USER_AGENT: "the browser",
    catalog.CLIENT_ADDRESS: "only with `client_address`",
    catalog.PEER_ADDRESS: "only with `client_address`",
    catalog.METHOD_ORIGINAL: "what a client sent in the place of a method",
    catalog.DB_TEXT: "a statement without its literals",
    catalog.SEGMENT: "declared values; only with `segment_spans`",
    catalog.USER_PSEUDONYM: "a pseudonym; only with `user_spans`, of who agrees",
    catalog.SESSION_PSEUDONYM: "a pseudonym, likewise",
}
"""Attributes that may speak of people, and what there is of them."""


# --- as it is written ---

COLUMNS = (
    "place", "what", "leads to", "purpose", "legal basis", "goes to", "kept", "ended before by",
)  # fmt: skip


def table_of(settings: Settings) -> page.Table:
    return page.Table(COLUMNS, [astuple(each) for each in holdings_of(settings)])
