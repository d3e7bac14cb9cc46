"""The rules on known data, by Prometheus' own engine, and what else there must be for each."""
