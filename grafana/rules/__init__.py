"""Prometheus' rules as Python: a file of rules is a module of this package with its `GROUPS`."""
