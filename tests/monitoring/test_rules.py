"""Rules, through the real promtool and amtool."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from monitoring import alerts
from monitoring.files import CHART, ROOT, files
from monitoring.objectives import BURNS, LATENCY_SECONDS, WINDOWS
from serving.observing.metrics import _SECONDS

HERE = Path(__file__).parent
RULES = sorted((ROOT / CHART / "rules").glob("*.yaml"))


def run(*command: str | Path, cwd: Path | None = None) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_what_is_committed_is_what_the_code_says(path: Path):
    assert (ROOT / path).read_text("utf-8") == files()[path], "run `python -m monitoring`"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="prometheus is not installed")
def test_prometheus_takes_the_rules():
    assert "SUCCESS" in run("promtool", "check", "rules", "--lint-fatal", *RULES)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="prometheus is not installed")
def test_alerts_are_raised_when_they_should_and_only_then(tmp_path: Path):
    for path in (*RULES, HERE / "alerts.test.yaml"):
        shutil.copy(path, tmp_path)
    assert "SUCCESS" in run("promtool", "test", "rules", "alerts.test.yaml", cwd=tmp_path)


def test_every_alert_is_tested_and_has_a_section_that_says_what_to_do():
    tested = (HERE / "alerts.test.yaml").read_text("utf-8")
    page = (ROOT / "docs/observability.md").read_text("utf-8")
    sections = set(re.findall(r"^#+ (Atelier\w+)$", page, re.MULTILINE))
    names = {rule.name for group in alerts.GROUPS for rule in group.rules}
    assert not [name for name in names if name not in tested]
    assert sections == names


def test_objectives_use_bounds_and_windows_that_there_are():
    assert LATENCY_SECONDS in _SECONDS
    assert {window for burn in BURNS for window in (burn.long, burn.short)} == set(WINDOWS)


@pytest.mark.skipif(shutil.which("amtool") is None, reason="prometheus-alertmanager is not installed")
def test_the_example_of_alertmanager_routes_pages_and_tickets_apart(tmp_path: Path):
    page = (ROOT / "docs/observability.md").read_text("utf-8")
    (example,) = re.findall(r"```yaml\n(route:.*?)```", page, re.DOTALL)
    config = tmp_path / "alertmanager.yml"
    config.write_text(example)
    run("amtool", "check-config", config)
    routed = {
        severity: run(
            "amtool", "config", "routes", "test", f"--config.file={config}", f"severity={severity}"
        ).strip()
        for severity in ("page", "ticket")
    }
    assert routed == {"page": "on-call", "ticket": "tickets"}
