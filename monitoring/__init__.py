"""Prometheus rules, Grafana dashboards and the page of metrics, as code: `python -m monitoring` writes them."""
