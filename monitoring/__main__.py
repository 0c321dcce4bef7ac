"""`python -m monitoring` writes rules, dashboards and the page of metrics where they belong."""

from __future__ import annotations

from monitoring.files import ROOT, files

for path, text in files().items():
    target = ROOT / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, "utf-8")
    print(f"wrote {path}")
