"""Stores that were made, for what asks them."""

from tests.store.conftest import emptied_database, file, template  # noqa: F401
