import pytest

from benchmarks.targets import ratio, targets


def overload(goodput: float, refusal: float) -> dict[str, object]:
    last = {"times": 3.0, "goodput": goodput, "refused": 9, "refusal_p99": refusal, "memory_grown": 0}
    return {"runs": [{"capacity": 10.0, "offered": [last]}]}


def test_ratios_are_taken_within_a_round():
    one = [{"rows": 1.0}, {"rows": 20.0}, {"rows": 300.0}]
    other = [{"rows": 2.0}, {"rows": 20.0}, {"rows": 200.0}]
    assert ratio(one, other, "rows") == pytest.approx(1.0)


def test_a_target_is_reached_from_its_own_side():
    good, refusal, memory = targets({"overload": overload(9.5, 0.02)})
    assert good.met
    assert refusal.met
    assert memory.met
    good, refusal, _ = targets({"overload": overload(8.5, 0.08)})
    assert not good.met
    assert not refusal.met


def test_without_figures_there_is_nothing_to_reach():
    assert targets({}) == []


def test_the_gateway_over_triton_is_held_against_the_embedded_engine():
    runs = {"embedded": [{"rows": 100.0}], "over Triton": [{"rows": 92.0}]}
    (target,) = targets({"triton_backend": {"any": {"runs": runs}}})
    assert target.met
    assert target.value == pytest.approx(0.92)


@pytest.mark.parametrize(("scenario", "bound"), [("one_pass", 0.5), ("heavy_pass", 0.9)])
def test_the_more_a_graph_computes_the_nearer_the_gateway_is_held_to_triton(scenario: str, bound: float):
    runs = {
        "raw": [{"rows": 100.0}],
        "atelier many": [{"images": 91.0}],
        "atelier single": [{"images": 70.0}],
        "triton single": [{"images": 100.0}],
    }
    of_raw, of_triton = targets({scenario: {"model": "any", "runs": runs}})
    assert of_raw.met
    assert of_raw.scenario == scenario
    assert (of_triton.value, of_triton.bound) == (pytest.approx(0.7), bound)


def test_peers_are_compared_over_their_own_protocol():
    rates = {"raw": 100, "atelier many": 90, "atelier single": 15, "atelier over HTTP single": 20}
    rates |= {"mlserver single": 10, "litserve single": 10}
    runs = {name: [{"images": float(rate), "rows": float(rate)}] for name, rate in rates.items()}
    _, of_mlserver, of_litserve = targets({"one_pass": {"model": "any", "runs": runs}})
    assert (of_mlserver.value, of_mlserver.met) == (pytest.approx(1.5), False)
    assert (of_litserve.value, of_litserve.met) == (pytest.approx(2.0), True)
    assert "HTTP" in of_litserve.what


def test_what_counting_adds_is_a_part_of_counting_many_times_over():
    runs = {
        "nothing": [{"cpu_seconds_a_row": 1.0}, {"cpu_seconds_a_row": 2.0}],
        "often": [{"cpu_seconds_a_row": 1.2}, {"cpu_seconds_a_row": 2.4}],
    }
    scrapes = {"loaded_p95": 0.012, "cpu_seconds": 0.3}
    added, p95, of_core = targets({"watching": {"models": {"any": runs}, "often": 20, "scrapes": scrapes}})
    assert added.value == pytest.approx(1.0)
    assert added.met
    assert p95.met
    assert of_core.value == pytest.approx(2.0)
    assert not of_core.met
