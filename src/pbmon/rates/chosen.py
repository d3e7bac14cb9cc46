"""The exchange rates of the settings: a service or a provider of the application's own, and the
bundled ones behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from importlib import import_module
from typing import Any

from pbmon import outbound, privacy, signals
from pbmon.money import Rate, Rates
from pbmon.rates.bundled import Bundled
from pbmon.rates.service import Service
from pbmon.settings import Settings
from pbmon.spool.directory import Home

_CACHE = "rates"
# Whose words hold no secret, where a provider is made.
_PLAIN = (ValueError, ImportError, AttributeError)


class Chosen:
    """A money.Rates of several, in order: the newest rate is taken, of the first who has it. A
    currency in itself is 1. A fault of one leaves the others."""

    def __init__(self, providers: Sequence[Rates]) -> None:
        self._providers = providers

    def rate(self, currency: str, base: str, day: date) -> Rate | None:
        if currency == base:
            return Rate(Decimal(1), day, "same")
        best: Rate | None = None
        for provider in self._providers:
            try:
                found = _checked(provider.rate(currency, base, day), day)
            except Exception as error:
                _tell(provider, error)
                continue
            if found is not None and (best is None or found.day > best.day):
                best = found
            if best is not None and best.day == day:
                break
        return best

    def refresh(self, wanted: Iterable[tuple[str, date]]) -> None:
        every = tuple(wanted)
        for provider in self._providers:
            try:
                provider.refresh(every)
            except Exception as error:
                _tell(provider, error)


def open_rates(settings: Settings, home: Home) -> Rates:
    """The rates by the settings. Reads nothing yet; what can't be used is one warning, and left
    out."""
    if settings.rates == "off":
        return Chosen(())
    first = _first(settings, home)
    bundled = Bundled(settings.rates_max_age_days, alone=first is None)
    return Chosen((bundled,) if first is None else (first, bundled))


def at_hand(settings: Settings) -> Rates | None:
    """The rates by the settings where they are the bundled ones, which need no refresh(); else
    None, for what another source says comes first."""
    return Bundled(settings.rates_max_age_days) if settings.rates == "ecb" else None


def _first(settings: Settings, home: Home) -> Rates | None:
    if settings.rates != "url" and settings.rates_url is not None:
        signals.tell(
            "rates_url", 'pbmon: rates_url is not used: set rates = "url", which is %s.',
            settings.rates if isinstance(settings.rates, str) else "another provider",
        )  # fmt: skip
    try:
        if settings.rates == "ecb":
            return None
        if settings.rates == "url":
            return _service(settings, home)
        return _own(settings.rates)
    except Exception as error:
        signals.tell(
            "rates", "pbmon: rates: %s; until then there are the bundled rates alone.",
            error if isinstance(error, _PLAIN) else privacy.error_type(error),
        )  # fmt: skip
        return None


def _service(settings: Settings, home: Home) -> Rates:
    url = outbound.url_of("rates_url", settings.rates_url)
    if url is None:
        raise ValueError('"url" needs rates_url, such as https://api.frankfurter.dev/v1/{date}')
    return Service(url, home.state_directory / _CACHE, settings.rates_max_age_days)


def _own(provider: Any) -> Rates:
    if isinstance(provider, str):
        module, _, name = provider.partition(":")
        made = import_module(module)
        for part in name.split("."):
            made = getattr(made, part)
        provider = made()  # type: ignore[operator]
    if not callable(getattr(provider, "rate", None)) or not callable(
        getattr(provider, "refresh", None)
    ):
        raise ValueError(f"{type(provider).__name__} has no rate() and refresh()")
    own: Rates = provider
    return own


def _checked(found: Any, day: date) -> Rate | None:
    """What a provider of the application's own may get wrong."""
    if found is None:
        return None
    value, of_day, source = found
    if not isinstance(value, Decimal) or not value.is_finite() or value <= 0:
        raise ValueError("rate() gave a value that is no Decimal above 0")
    if not isinstance(of_day, date) or of_day > day:
        raise ValueError("rate() gave a rate of a later day, or of none")
    return Rate(value, of_day, str(source)[:32])


def _tell(provider: Rates, error: Exception) -> None:
    name = type(provider).__name__
    signals.tell(
        f"rates.{name}", "pbmon: the exchange rates of %s failed: %s", name,
        error if isinstance(error, ValueError) else privacy.error_type(error),
    )  # fmt: skip
