"""What people write of themselves and others, taken out of free text. Pure.

Each kind is looked for in a form of the text in which digits, letters, spaces and hyphens of every
script are the plain ones and invisible characters are gone. No search goes back over what it has
passed, but for a bounded length: the time is linear in the text's.
"""

from __future__ import annotations

import ipaddress
import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from typing import Any

Span = tuple[int, int]

PLACEHOLDERS = ("[token]", "[email]", "[iban]", "[ip]", "[card]", "[phone]")
"""What stands in the place of each kind, in the order in which they are looked for."""

OF_PEOPLE = ("[token]", "[email]", "[iban]", "[public ip]", "[card]")
"""Kinds for texts of machines: their own addresses, of private networks, stay, and so do numbers
that look like those of phones."""


_PASSES = 8


def scrub(text: str, kinds: Collection[str] = PLACEHOLDERS) -> str:
    """The text with e-mail addresses, IBANs, payment cards, IP addresses, phone numbers and
    credentials replaced by [email], [iban], [card], [ip], [phone] and [token].

    A number is a card or an IBAN by its check digits, a phone number by its form: with a country
    code, divided as phone numbers are, or called one. Amounts, dates, and numbers of orders that
    are none of these stay. Names stay too. Scrubbed twice is scrubbed once.

    kinds: of PLACEHOLDERS, only these are looked for; `[public ip]`, which becomes [ip], leaves the
    addresses of private networks.
    """
    for _ in range(_PASSES):
        scrubbed = _scrubbed_once(text, kinds)
        if scrubbed == text:
            break
        text = scrubbed  # what was taken out may have parted what is now found
    return text


def _scrubbed_once(text: str, kinds: Collection[str]) -> str:
    plain, places = _plain(text)
    found: list[tuple[int, int, str]] = []
    for find, placeholder in zip(_FINDERS, PLACEHOLDERS, strict=True):
        if placeholder in kinds:
            spans = list(find(plain))
        elif placeholder == "[ip]" and "[public ip]" in kinds:
            spans = list(_public_ips(plain))
        else:
            continue
        if spans:
            found += [(begin, end, placeholder) for begin, end in spans]
            plain = _without(plain, spans)
    if not found:
        return text
    parts, at = [], 0
    for begin, end, placeholder in sorted(found):
        parts += [text[at : places[begin]], placeholder]
        at = places[end - 1] + 1
    return "".join(parts) + text[at:]


def scrub_json(text: str) -> str | None:
    """A JSON text whose strings and keys are scrubbed, not its numbers; None for what can't be
    looked into: it is nested too deeply, or no JSON."""
    if not is_suspect(text) and "\\u" not in text:
        return text
    try:
        whole = [json.loads(text)]
    except (ValueError, RecursionError):
        return None
    found = False
    rest: list[Any] = [whole]
    while rest:
        inside = rest.pop()
        if isinstance(inside, dict):
            found |= _scrub_keys(inside)
        for key, value in inside.items() if isinstance(inside, dict) else enumerate(inside):
            if isinstance(value, str):
                if is_suspect(value) and (clean := scrub(value)) != value:
                    inside[key], found = clean, True
            elif isinstance(value, dict | list):
                rest.append(value)
    if not found:
        return text
    return json.dumps(whole[0], ensure_ascii=False, separators=(",", ":"))


def _scrub_keys(inside: dict[str, Any]) -> bool:
    """In place; whether any was changed. Those that become the same are numbered."""
    names: dict[str, str] = {}
    for key in inside:
        clean = scrub(key) if is_suspect(key) else key
        if clean != key:
            names[key] = clean
    for key, clean in names.items():
        name, number = clean, 1
        while name in inside:
            number += 1
            name = f"{clean} {number}"
        inside[name] = inside.pop(key)
    return bool(names)


def is_suspect(text: str) -> bool:
    """Whether scrub() may find anything. Where it says no, scrub() gives the text back; this takes
    a fraction of the time."""
    return not text.isascii() or _SUSPECT.search(text) is not None


# What any of the searches below needs, in the order of how often it is met.
_SUSPECT = re.compile(
    r"@|%40|[0-9](?:[ ./()-]{0,3}[0-9]){6}|[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|:[0-9A-Fa-f.]{0,4}:"
    r"|[A-Za-z]{2}[ -]{0,2}[0-9]{2}(?:[ .-]{0,2}[A-Za-z0-9]){11}|eyJ|[A-Za-z0-9_.-]{18}"
    r"|(?i:pass|pwd|secret|authorization|key|token|session|cookie|bearer|basic|digest)"
)

# --- the plain form ---

_HYPHENS = frozenset("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58")
_GONE = "\0"
"""In the place of what was found: in no class of characters below."""


def _plain(text: str) -> tuple[str, Sequence[int]]:
    """The plain form, and where each of its characters stands in the text."""
    if text.isascii():
        return text, range(len(text))
    kept = [(c, at) for at, c in enumerate(map(_simple, text)) if c]
    return "".join(c for c, _ in kept), [at for _, at in kept]


@lru_cache(4096)
def _simple(character: str) -> str:
    """One character for another; none for an invisible one."""
    if character.isascii():
        return character
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Zs":
        return " "
    if character in _HYPHENS:
        return "-"
    simple = unicodedata.normalize("NFKC", character)
    return simple if len(simple) == 1 else character


def _without(plain: str, spans: Sequence[Span]) -> str:
    """With nothing to be found any more where it was found."""
    parts, at = [], 0
    for begin, end in spans:
        parts += [plain[at:begin], _GONE * (end - begin)]
        at = end
    return "".join(parts) + plain[at:]


# --- credentials ---

# A character of a secret; a placeholder is none.
_VALUE = r"(?:[^\s,;&\"'<>\x00\[]|\[(?!(?:token|email|iban|ip|phone|card)\]))"
_NAMED = re.compile(
    r"(?i:pass(?:word|wd|phrase)|pwd|secret|authorization|(?:api|access|private|secret)[ _-]?key"
    r"|(?:access|refresh|auth|id|session)?[ _-]?token|sessionid)[\"']?"
    # Where another rule has put REDACTED there is nothing left to find.
    rf"(?:\s?=\s?[\"']?(?!REDACTED\b)({_VALUE}+)|\s?:\s?[\"']?(?!REDACTED\b)({_VALUE}{{6,}}))"
)
_SCHEME = re.compile(r"(?i:\b(?:bearer|basic|digest)\s)\s?([\w.~+/-]{8,}=*)")
_PREFIXED = re.compile(
    r"(?<![^\W_])(?:(?:sk|pk|rk|whsec|gh[opsur]|github_pat|glpat|xox[a-z]|npm|pypi|hf)[_-]"
    r"|A[KS]IA|AIza|ya29\.|SG\.)[\w.-]{16,}"
)
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?")
_OPAQUE = re.compile(r"(?<![\w-])[A-Za-z0-9_-]{40,}")
_USERINFO = re.compile(r"://([^\s/@:\x00\[]*:[^\s/@\x00]*)@")  # "[": a placeholder is no user
_COOKIE = re.compile(r"(?i:\bcookie\s?:\s?)([^\s=;,:\x00]{1,64}=[^\n\x00]*)")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}-----|\Z)", re.DOTALL
)
_TURN = re.compile("[a-z][A-Z]")
_DIGIT = re.compile("[0-9]")


def _tokens(plain: str) -> Iterator[Span]:
    """Where one lies in another, the longer of them."""
    spans: list[Span] = [match.span() for match in _PRIVATE_KEY.finditer(plain)]
    spans += [match.span(1) for match in _COOKIE.finditer(plain)]
    spans += [match.span(1) for match in _USERINFO.finditer(plain)]
    for match in _NAMED.finditer(plain):
        if match[1] is not None or _DIGIT.search(match[2]):
            spans.append(match.span(match.lastindex or 0))
    spans += [m.span(1) for m in _SCHEME.finditer(plain) if _is_random(m[1], turns=2)]
    spans += [m.span() for m in _PREFIXED.finditer(plain) if _DIGIT.search(m[0])]
    spans += [match.span() for match in _JWT.finditer(plain)]
    for match in _OPAQUE.finditer(plain):
        if _DIGIT.search(match[0]) and _is_random(match[0], turns=3, digit_is_enough=False):
            spans.append(match.span())
    return _joined(spans)


def _is_random(text: str, *, turns: int, digit_is_enough: bool = True) -> bool:
    """Whether it is no word: it has a digit, or turns to capitals within it so often."""
    if digit_is_enough and _DIGIT.search(text):
        return True
    return len(_TURN.findall(text)) >= turns


def _joined(spans: list[Span]) -> Iterator[Span]:
    """Those that overlap as one."""
    last: Span | None = None
    for begin, end in sorted(spans):
        if last is not None and begin < last[1]:
            last = (last[0], max(end, last[1]))
            continue
        if last is not None:
            yield last
        last = (begin, end)
    if last is not None:
        yield last


# --- addresses ---

# A run of the first class is passed once: what is before refuses who begins in its middle.
_EMAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]+(?:@|%40)(?:[\w-]+\.)+[^\W\d_][\w-]+")
_NEXT_EMAIL = re.compile(_EMAIL.pattern.partition(")")[2])
_IPV4 = re.compile(r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w]|\.[0-9])")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:][0-9A-Fa-f:.]{1,44}(?:%\w{1,15})?(?![\w:])")


def _emails(plain: str) -> Iterator[Span]:
    spans = []
    for match in _EMAIL.finditer(plain):
        found: re.Match[str] | None = match
        while found is not None:  # one that follows another without anything between them
            spans.append(found.span())
            found = _NEXT_EMAIL.match(plain, found.end())
    return _joined(spans)


def _ips(plain: str) -> Iterator[Span]:
    spans = [
        match.span()
        for match in _IPV4.finditer(plain)
        if all(int(part) <= 255 for part in match[0].split("."))
    ]
    for match in _IPV6.finditer(plain):
        for text in (match[0], match[0].rstrip("."), match[0].rstrip(".:")):
            if text.count(":") > 1 and text.strip(":") and _is_ip(text):
                spans.append((match.start(), match.start() + len(text)))
                break
    return _joined(spans)


# Of the machine itself, of its network: RFC 1918, 4193, 3927 and 4291.
_PRIVATE = tuple(
    ipaddress.ip_network(each)
    for each in (
        "0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.168.0.0/16", "::/127", "fc00::/7", "fe80::/10",
    )
)  # fmt: skip


def _public_ips(plain: str) -> Iterator[Span]:
    for begin, end in _ips(plain):
        try:
            address = ipaddress.ip_address(plain[begin:end].partition("%")[0])
        except ValueError:  # several joined
            yield begin, end
            continue
        address = getattr(address, "ipv4_mapped", None) or address
        if not any(address in network for network in _PRIVATE):
            yield begin, end


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


# --- numbers ---

_IBAN = re.compile(r"(?<![^\W_])(?=([A-Za-z]{2}[ -]{0,2}[0-9]{2}(?:[ .-]{0,2}[A-Za-z0-9]){11,30}))")
_LENGTHS = {
    each[:2]: int(each[2:])
    for each in re.findall(
        r"\w+",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 "
        "DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 "
        "IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 "
        "MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 "
        "SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30",
    )
}
"""Country → characters of an IBAN, of the SWIFT registry."""

# What ends a number is neither a word nor a clock time, so that taking one away frees no other.
_CARD = re.compile(r"(?<![\w+])(?=([0-9]{1,19}(?:[ .-]{1,2}[0-9]{1,19}){0,5})(?![\w:]))")
_GROUP = re.compile("[0-9]+")
_CARD_DIGITS = (13, 19)
_LEAST_GROUP = 3
"""Digits; a date has groups of two."""

_FRACTION = re.compile("[0-9][.,]")
_PHONES = tuple(
    re.compile(form + r"(?![\w:])")
    for form in (
        r"\+ ?[1-9](?:[ ./()-]{0,3}[0-9]){7,14}",
        r"\((?:0[0-9]{1,4}|[0-9]{3})\) ?[0-9](?:[ .-]?[0-9]){4,9}",
        r"(?<![\w.,/+-])00[1-9](?:[ ./()-]{0,3}[0-9]){7,14}",
        r"(?<![\w.,/+-])[0-9]{3}[.-][0-9]{3}[.-][0-9]{4}",
        r"(?<![\w.,/+-])0[0-9]{1,4} ?/ ?[0-9](?:[ -]?[0-9]){4,9}",
        # But for 01-02-2026 10, a date.
        r"(?<![\w.,/+-])(?!0[0-9][ -][0-9]{2}[ -][0-9]{4})0[0-9]{1,4}[ -][0-9](?:[ -]?[0-9]){5,9}",
    )
)
_CALLED = re.compile(
    r"(?i:\b(?:telephone|phone|tel|mobile|cell|fax|whatsapp|sms)(?: (?:number|no|is|at))?)"
    r"[.:]{0,2} {0,2}(\+?[0-9](?:[ ./()-]{0,2}[0-9]){6,14})(?![\w:])"
)


def _ibans(plain: str) -> Iterator[Span]:
    end = 0
    for match in _IBAN.finditer(plain):
        begin = match.start()
        if begin < end:
            continue
        length = _LENGTHS.get(match[1][:2].upper(), 0)
        places = [at for at, c in enumerate(match[1]) if c.isalnum()][:length]
        if not length or len(places) < length:
            continue
        last = begin + places[-1] + 1
        digits = "".join(match[1][at] for at in places)
        if plain[last : last + 1].isalnum() or not _is_iban(digits):
            continue
        end = last
        yield begin, end


def _is_iban(text: str) -> bool:
    """By ISO 13616: the number that it is has the rest 1 by 97."""
    return int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1


def _phones(plain: str) -> Iterator[Span]:
    spans = [match.span() for form in _PHONES for match in form.finditer(plain)]
    spans += [match.span(1) for match in _CALLED.finditer(plain)]
    return _joined(spans)


def _cards(plain: str) -> Iterator[Span]:
    end = 0
    for match in _CARD.finditer(plain):
        begin = match.start()
        if begin < end or (begin - 1 != end and _FRACTION.match(plain, max(begin - 2, 0))):
            continue
        length = _card_length(match[1])
        if length:
            end = begin + length
            yield begin, end


def _card_length(text: str) -> int:
    """Of groups that follow each other as many as make a card, by their characters; 0: none does.
    A number behind it is none of it."""
    digits, length = "", 0
    for group in _GROUP.finditer(text):
        digits += group[0]
        if len(digits) > _CARD_DIGITS[1]:
            break
        if len(digits) >= _CARD_DIGITS[0] and _is_card(digits):
            length = group.end()
        if len(group[0]) < _LEAST_GROUP:
            break
    return length


def _is_card(text: str) -> bool:
    """By Luhn (ISO/IEC 7812)."""
    numbers = [int(digit) for digit in reversed(text)]
    doubled = (sum(divmod(2 * number, 10)) for number in numbers[1::2])
    return (sum(numbers[0::2]) + sum(doubled)) % 10 == 0


_FINDERS: tuple[Callable[[str], Iterator[Span]], ...] = (
    _tokens, _emails, _ibans, _ips, _cards, _phones,
)  # fmt: skip
