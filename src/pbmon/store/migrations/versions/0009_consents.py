"""Versions and times of decisions."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

SCHEMA = "pbmon"
PURPOSES = ("analytics", "sharing")


def upgrade() -> None:
    _add("consents", "version", sa.String(50))
    _add("consents", "stored_at", sa.BigInteger())
    for purpose in PURPOSES:
        for name, kind in (
            ("at", sa.BigInteger()),
            ("version", sa.String(50)),
            ("since", sa.BigInteger()),
            ("withdrawn_at", sa.BigInteger()),
        ):
            _add("subjects", f"{purpose}_{name}", kind)
        _fill(purpose)


def _add(table: str, column: str, kind: sa.types.TypeEngine[Any]) -> None:
    # What makes a table knows that SQLite has no schemas; what alters one does not.
    schema = SCHEMA if op.get_bind().dialect.name == "postgresql" else None
    op.add_column(table, sa.Column(column, kind), schema=schema)


def _fill(purpose: str) -> None:
    """From the decisions that are there."""
    place = f"{SCHEMA}." if op.get_bind().dialect.name == "postgresql" else ""
    said = (
        f"SELECT max(decided_at) FROM {place}consents AS said"
        f" WHERE said.lookup = {place}subjects.lookup AND said.purpose = '{purpose}'"
    )
    op.execute(
        f"UPDATE {place}subjects SET {purpose}_at = ({said}),"
        f" {purpose}_withdrawn_at = ({said} AND NOT said.granted), {purpose}_since = 0"
        f" WHERE {purpose} IS NOT NULL"
    )
