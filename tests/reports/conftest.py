"""Stores that were made, for what asks them."""

from tests.store.conftest import emptied_database, file, quick_url, template  # noqa: F401
