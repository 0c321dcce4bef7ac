"""Rules for Prometheus, dashboards for Grafana, the page of metrics: `python -m monitoring` writes them."""
