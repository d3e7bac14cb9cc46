"""Tests of the dashboards: a lint with its own tests, and the queries on known data."""
