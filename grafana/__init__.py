"""Grafana dashboards as Python; `python -m grafana.build` writes their JSON."""
