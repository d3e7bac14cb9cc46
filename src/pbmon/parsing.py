"""From what a keyword, a TOML value or an environment string may be to the value of a setting.

Each parser raises ValueError saying what would be right. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, cast
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pbmon import money, privacy
from pbmon.budgets import Budget, Budgets, parse_budget, seconds
from pbmon.experiments import MAX_EXPERIMENTS, Experiment, is_name, parse_experiment
from pbmon.money import Rates
from pbmon.peers import Network
from pbmon.purposes import BASES, MAX_VERSION, PURPOSES

Mode = Literal["pbmon", "upstream", "off"]

MAX_RELEASE = 100
"""Characters of a release."""


class PartlyUsable(ValueError):
    """Some items of a list are wrong: the others are kept."""

    def __init__(self, usable: Any, messages: list[str]) -> None:
        super().__init__("; ".join(messages))
        self.usable = usable
        self.messages = messages


def flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "1", "yes", "on"):
        return True
    if isinstance(value, str) and value.strip().lower() in ("false", "0", "no", "off"):
        return False
    raise ValueError(f"{value!r} is not true or false")


def text(value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    # The value is not repeated: store_url and endpoint hold passwords.
    raise ValueError(f"must be a text with something in it, not {type(value).__name__}")


def release(value: Any) -> str:
    name = text(value)
    if not name.isprintable() or len(name) > MAX_RELEASE:
        raise ValueError(f"{name!r} is not 1 to {MAX_RELEASE} printable characters")
    return name


def header_name(value: Any) -> str:
    """In lower case, as ASGI has it."""
    name = text(value)
    if not re.fullmatch("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", name):
        raise ValueError(f"{name!r} is no name of a header, such as x-request-id")
    return name.lower()


def above_zero(value: Any) -> float:
    number = seconds(value)
    if number == 0:
        raise ValueError("must be above 0")
    return number


def whole_above_zero(value: Any) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is not a whole number above 0")
    return value


def zone(value: Any) -> str:
    name = text(value)
    if name == "UTC":  # known without a database of zones
        return name
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"{name!r} is no time zone that is known here; write one such as Europe/Berlin"
        ) from None
    return name


def currency(value: Any) -> str:
    code = text(value)
    money.exponent(code)
    return code


def url(value: Any) -> str:
    where = text(value)
    try:
        # host:port, as gRPC endpoints are often written, stays so: there it means TLS.
        parts = urlsplit(where if "://" in where else f"http://{where}")
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        good = False
    if not good or re.search(r"\s", where):
        raise ValueError("must be a URL such as http://localhost:4318")
    return where


def dated_url(value: Any) -> str:
    """With `{date}` in it; or `env:NAME`. The value is not repeated: it may hold a key."""
    where = text(value)
    if not where.startswith("env:"):
        url(where)
        if "{date}" not in where:
            raise ValueError("must have {date} in it, where the day is to stand")
    return where


def named_url(value: Any) -> str:
    """A URL, or `env:NAME`."""
    where = text(value)
    return where if where.startswith("env:") else url(where)


def secret(value: Any) -> str:
    """Where a secret is; never the secret itself, and no value is repeated."""
    where = text(value)
    if re.fullmatch(r"(env|file):.+", where) is None:
        raise ValueError("must be env:NAME or file:PATH, where the secret is, and not the secret")
    return where


def rates(value: Any) -> str | Rates:
    if isinstance(value, str) and (
        value in ("ecb", "url", "off") or re.fullmatch(r"[\w.]+:[\w.]+", value)
    ):
        return value
    if callable(getattr(value, "rate", None)) and callable(getattr(value, "refresh", None)):
        return cast("Rates", value)
    raise ValueError("must be ecb, url, off, module:callable, or an object with rate and refresh")


def one_of(*allowed: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value in allowed:
            return str(value)
        raise ValueError(f"{value!r} is not one of {', '.join(allowed)}")

    return parse


def words(value: Any) -> tuple[str, ...]:
    """Text parted by commas, or a sequence of texts."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, Sequence) and all(isinstance(v, str) and v for v in value):
        return tuple(value)
    raise ValueError(f"{value!r} is not a list of texts (in the environment, parted by commas)")


def all_or_some(value: Any) -> bool | tuple[str, ...]:
    """True, false or names."""
    try:
        return flag(value)
    except ValueError:
        return words(value)


def patterns(value: Any) -> tuple[str, ...]:
    found = words(value)
    for pattern in found:
        try:
            re.compile(pattern)
        # FutureWarning: an ambiguous set such as [[a], where warnings are errors.
        except (re.error, OverflowError, RecursionError, FutureWarning) as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    return found


def networks(value: Any) -> tuple[Network, ...]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = [str(n) if isinstance(n, Network) else n for n in value]
    try:
        return tuple(ipaddress.ip_network(word) for word in words(value))
    except ValueError as error:
        raise ValueError(f"{error}; write networks such as 10.0.0.0/8") from None


def budgets(value: Any) -> Budgets:
    if isinstance(value, Budgets):
        return value
    if isinstance(value, str):
        value = [part.strip() for part in value.split(";") if part.strip()]
    if isinstance(value, (Budget, Mapping)) or not isinstance(value, Iterable):
        raise ValueError("must be a list of budgets ([[budgets]] in pbmon.toml)")
    good: list[Budget] = []
    known: set[tuple[str | None, str]] = set()
    bad: list[str] = []
    for item in value:
        try:
            budget = parse_budget(item)
        except ValueError as error:
            bad.append(str(error))
            continue
        if (key := (budget.method, budget.endpoint)) in known:
            bad.append(
                f"budget for {budget.endpoint} is given twice, the second time without effect"
            )
        else:
            known.add(key)
            good.append(budget)
    if bad:
        raise PartlyUsable(Budgets(good), bad)
    return Budgets(good)


PROPERTY_TYPES = ("str", "int", "float", "bool", "list", "dict")


def events(value: Any) -> Mapping[str, Mapping[str, str]]:
    """Event name → property → type."""
    if not isinstance(value, Mapping):
        raise ValueError("must be a table of events ([events.NAME] in pbmon.toml)")
    made: dict[str, Mapping[str, str]] = {}
    for name, properties in value.items():
        if not is_name(name):
            raise ValueError(f"event name {name!r} is not 1 to 100 printable characters")
        if not isinstance(properties, Mapping):
            raise ValueError(f'event {name} must be a table of properties, such as amount = "int"')
        for key, kind in properties.items():
            if kind not in PROPERTY_TYPES:
                raise ValueError(
                    f"property {key} of event {name} is of type {kind!r}, which is not one of "
                    + ", ".join(PROPERTY_TYPES)
                )
        made[name] = MappingProxyType(dict(properties))
    return MappingProxyType(made)


def experiments(value: Any) -> Mapping[str, Experiment]:
    """Key → experiment."""
    if not isinstance(value, Mapping):
        raise ValueError("must be a table of experiments ([experiments.KEY] in pbmon.toml)")
    if len(value) > MAX_EXPERIMENTS:
        raise ValueError(f"has more than {MAX_EXPERIMENTS} experiments; remove those that are over")
    return MappingProxyType({key: parse_experiment(key, each) for key, each in value.items()})


def consent(value: Any) -> Mapping[str, str]:
    """Purpose → legal basis. One basis alone is that of all purposes."""
    if isinstance(value, str) and "=" not in value:
        value = dict.fromkeys(PURPOSES, value.strip())
    if isinstance(value, str):
        pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
        value = {name.strip(): basis.strip() for name, _, basis in pairs}
    if not isinstance(value, Mapping):
        raise ValueError("must be purpose=basis pairs, such as analytics=opt-in,sharing=opt-out")
    for purpose, basis in value.items():
        if purpose not in PURPOSES:
            raise ValueError(f"purpose {purpose!r} is not one of {', '.join(PURPOSES)}")
        if basis not in BASES:
            raise ValueError(f"basis {basis!r} of {purpose} is not one of {', '.join(BASES)}")
    return MappingProxyType({**dict.fromkeys(PURPOSES, "opt-in"), **value})


def consent_versions(value: Any) -> Mapping[str, str]:
    """Purpose → version. One version alone is that of all purposes."""
    if isinstance(value, str) and "=" not in value:
        value = dict.fromkeys(PURPOSES, value.strip())
    if isinstance(value, str):
        pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
        value = {name.strip(): version.strip() for name, _, version in pairs}
    if not isinstance(value, Mapping):
        raise ValueError("must be a version, or purpose=version pairs, such as analytics=2026-11")
    for purpose, version in value.items():
        if purpose not in PURPOSES:
            raise ValueError(f"purpose {purpose!r} is not one of {', '.join(PURPOSES)}")
        if not is_version(version):
            raise ValueError(
                f"version of {purpose} is not a text of 1 to {MAX_VERSION} printable characters"
            )
    return MappingProxyType(dict(value))


def is_version(value: Any) -> bool:
    """Of the text that people agree to."""
    return isinstance(value, str) and 0 < len(value) <= MAX_VERSION and value.isprintable()


@dataclass(frozen=True, slots=True)
class Target:
    """A destination of events as it is set. Its options hold secrets: text shows names alone."""

    kind: str
    options: Mapping[str, Any] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.kind} ({', '.join(self.options)})"


TARGETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "webhook": ("url", "secret", "plain", "source", "max_events", "max_bytes"),
        "segment": ("write_key", "url", "deletion_token", "deletion_url"),
        "mixpanel": (
            "token",
            "account",
            "secret",
            "project_id",
            "url",
            "deletion_token",
            "deletion_url",
        ),
        "amplitude": ("api_key", "url", "secret_key", "deletion_url"),
    }
)
"""Destination → its options."""


def targets(value: Any) -> Mapping[str, Target]:
    """Destination → Target. No value is repeated in a message: options hold secrets."""
    if not isinstance(value, Mapping):
        raise ValueError("must be a table of destinations ([destinations.NAME] in pbmon.toml)")
    made = {}
    for name, options in value.items():
        if name not in TARGETS:
            raise ValueError(f"destination {name!r} is not one of {', '.join(TARGETS)}")
        if not isinstance(options, Mapping):
            raise ValueError(f"destination {name} must be a table of options")
        for key in options:
            if key not in TARGETS[name]:
                known = ", ".join(TARGETS[name])
                raise ValueError(f"destination {name} has no option {key!r}; it has {known}")
        made[name] = Target(name, MappingProxyType(dict(options)))
    return MappingProxyType(made)


@dataclass(frozen=True, slots=True)
class Users:
    """The application's table of users. url: SQLAlchemy's, or env:NAME; it may hold a password.
    table: name or schema.name. The others are columns; active: values of `status` that count."""

    url: str = field(repr=False)
    table: str
    id: str
    created_at: str
    last_seen_at: str | None = None
    status: str | None = None
    active: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.table} at {_place(self.url)}"


def _place(url: str) -> str:
    return url if url.startswith("env:") else privacy.mask_url(url)


def users(value: Any) -> Users:
    """No value is repeated in a message but names of columns: the URL holds a password."""
    if isinstance(value, Users):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("must be a table of url, table, id, created_at ([users] in pbmon.toml)")
    known = [each.name for each in fields(Users)]
    for key in value:
        if key not in known:
            raise ValueError(f"there is no option {str(key)!r}; there are {', '.join(known)}")
    for key in ("url", "table", "id", "created_at"):
        if key not in value:
            raise ValueError(f"{key} is missing")
    texts = {key: text(each) for key, each in value.items() if key != "active"}
    active = value.get("active", ())
    if isinstance(active, str) or not isinstance(active, Sequence):
        active = [active]
    if bool(active) != ("status" in texts):
        raise ValueError("status and active belong together: the column, and values that count")
    return Users(**texts, active=tuple(map(str, active)))


@dataclass(frozen=True, slots=True)
class Payments:
    """How the application's own database is asked for its payments of each day. url: SQLAlchemy's,
    or env:NAME; it may hold a password. query: one SELECT with :start and :end."""

    url: str = field(repr=False)
    query: str = field(repr=False)

    def __str__(self) -> str:
        return f"a query at {_place(self.url)}"


def payments(value: Any) -> Payments:
    """No value is repeated in a message: the URL holds a password, the query may."""
    if isinstance(value, Payments):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("must be a table of url and query ([reconcile] in pbmon.toml)")
    for key in value:
        if key not in ("url", "query"):
            raise ValueError(f"there is no option {str(key)!r}; there are url, query")
    for key in ("url", "query"):
        if key not in value:
            raise ValueError(f"{key} is missing")
    query = text(value["query"]).rstrip("; \n\t")
    if not re.match(r"(?i)(select|with)\b", query) or ";" in query:
        raise ValueError("query must be one SELECT")
    for name in (":start", ":end"):
        if not re.search(rf"(?<![:\w]){name}\b", query):
            raise ValueError(f"query must have {name} in it, to read no more than is asked for")
    return Payments(text(value["url"]), query)


def finder(value: Any) -> Any:
    """`header:NAME`, `cookie:NAME`, or a function of the ASGI scope."""
    if callable(value):
        return value
    if isinstance(value, str):
        kind, _, name = value.strip().partition(":")
        if kind in ("header", "cookie") and name.strip():
            return f"{kind}:{name.strip()}"
    raise ValueError("must be header:NAME, cookie:NAME or a function of the ASGI scope")


def modes(value: Any) -> Mapping[str, Mode]:
    if isinstance(value, str):
        pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
        value = {name.strip(): mode.strip() for name, _, mode in pairs}
    if not isinstance(value, Mapping):
        raise ValueError("must be name=mode pairs, such as psycopg2=upstream,sqlite3=off")
    for name, mode in value.items():
        if mode not in ("pbmon", "upstream", "off"):
            raise ValueError(f"mode {mode!r} of hook {name} is not one of pbmon, upstream, off")
    return MappingProxyType(dict(value))


def public(value: Any) -> bool | tuple[str, ...] | Callable[[Mapping[str, Any]], bool]:
    if callable(value):
        return cast("Callable[[Mapping[str, Any]], bool]", value)
    try:
        return flag(value)
    except ValueError:
        paths = words(value)
    if not all(path.startswith("/") for path in paths):
        raise ValueError("must be true, false, paths starting with '/', or a function of the scope")
    return paths
