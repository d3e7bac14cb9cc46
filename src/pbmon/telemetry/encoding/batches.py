"""A batch of spans or log records: one request, from which no item keeps another out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pbmon import catalog
from pbmon.telemetry.encoding.limits import MAX_ITEM_BYTES, MAX_TEXT_BYTES, SHORT_BYTES
from pbmon.telemetry.encoding.mending import Mender
from pbmon.telemetry.encoding.payloads import Encoded
from pbmon.telemetry.encoding.sources import Sources, add


def encode(
    items: Iterable[Any],
    plain: Callable[[Any, Sources], Any],
    mend: Callable[[Any, Mender], Any],
    stock: Callable[[Any], Any],
    clean: Callable[[Any], None] | None = None,
) -> Encoded:
    """clean: takes out of an item made legal what is not to leave."""
    if clean is not None:
        plain, mend = _and_clean(plain, clean), _and_clean(mend, clean)
    sources = Sources()
    replaced: dict[str, int] = {}
    pairs: list[tuple[Any, Any]] = []
    for item in items:
        try:
            pairs.append((item, plain(item, sources)))
        except Exception:
            pairs.append((item, _mended(item, mend, stock, sources, replaced)))
    try:
        payload = serialize([made for _, made in pairs], stock)
        left_out = 0
    except Exception:  # in a field that the quick look leaves to the stock encoder
        ready = [
            made if _is_taken(made, stock) else _mended(item, mend, stock, sources, replaced)
            for item, made in pairs
        ]
        payload, left_out = serialize_each(ready, stock)
    add(replaced, sources.replaced)
    return Encoded(payload, len(pairs) - left_out, replaced, left_out)


def _and_clean(
    make: Callable[[Any, Any], Any], clean: Callable[[Any], None]
) -> Callable[[Any, Any], Any]:
    def made_clean(item: Any, with_: Any) -> Any:
        made = make(item, with_)
        clean(made)
        return made

    return made_clean


def _is_taken(made: Any, stock: Callable[[Any], Any]) -> bool:
    try:
        serialize([made], stock)
    except Exception:
        return False
    return True


def _mended(
    item: Any,
    mend: Callable[[Any, Mender], Any],
    stock: Callable[[Any], Any],
    sources: Sources,
    replaced: dict[str, int],
) -> Any:
    """The item made legal; None, which no encoder takes, if even that fails."""
    try:
        # First with room for what is small once encoded, then only with what surely fits.
        mender = Mender(share_bytes=_ROOM_BYTES, whole_bytes=_ROOM_BYTES)
        made = mend(item, mender)
        if mender.full or (
            mender.size > MAX_ITEM_BYTES and len(serialize([made], stock)) > MAX_ITEM_BYTES
        ):
            mender = Mender(SHORT_BYTES, MAX_TEXT_BYTES, MAX_ITEM_BYTES - MAX_TEXT_BYTES)
            made = mend(item, mender)
        made.resource = sources.resource(mender.read(item, "resource"))
        made.instrumentation_scope = sources.scope(mender.read(item, "instrumentation_scope"))
    except Exception:
        return None
    if mender.replaced:
        made.attributes[catalog.REPLACED_VALUES.name] = sum(mender.replaced.values())
        add(replaced, mender.replaced)
    return made


_ROOM_BYTES = 4 * MAX_ITEM_BYTES


def serialize(ready: Any, stock: Callable[[Any], Any]) -> bytes:
    return bytes(stock(ready).SerializeToString())


def serialize_each(ready: Iterable[Any], stock: Callable[[Any], Any]) -> tuple[bytes, int]:
    """All that can be encoded, and how many can't. Requests behind each other are one request."""
    try:
        return serialize(ready, stock), 0
    except Exception:
        parts: list[bytes] = []
        left_out = 0
        for item in ready:
            try:
                parts.append(serialize([item], stock))
            except Exception:
                left_out += 1
        return b"".join(parts), left_out
