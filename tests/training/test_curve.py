import csv
from pathlib import Path

from training.curve import Curve


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "curve.csv").open() as file:
        return list(csv.DictReader(file))


def test_figures_that_come_later_get_a_column_and_earlier_points_stay(tmp_path: Path):
    curve = Curve(tmp_path, (), tensorboard=False)
    curve.add({"step": 1, "seconds": 0.5, "cpu_seconds": 0.25, "loss": 2.0})
    curve.add({"step": 2, "seconds": 1.0, "cpu_seconds": 0.5, "loss": 1.0, "held_out/elbo": 3.25})
    curve.add({"step": 3, "seconds": 1.5, "cpu_seconds": 0.75, "loss": 0.123456789})
    assert [row["loss"] for row in rows(tmp_path)] == ["2", "1", "0.1234568"]
    assert [row["held_out/elbo"] for row in rows(tmp_path)] == ["", "3.25", ""]
    assert rows(tmp_path)[2]["cpu_seconds"] == "0.75"


def test_a_resumed_curve_forgets_what_came_after_its_checkpoint(tmp_path: Path):
    curve = Curve(tmp_path, (), tensorboard=False)
    points = [{"step": s, "seconds": s, "cpu_seconds": s, "loss": s} for s in range(5)]
    for point in points:
        curve.add(point)
    resumed = Curve(tmp_path, points[:2], tensorboard=False)
    resumed.add(points[3])
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "3"]
