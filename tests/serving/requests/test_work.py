import pytest

from serving.requests.work import calls_of


@pytest.mark.parametrize(
    ("sampler", "calls"), [("ddim", 10), ("euler_ancestral", 10), ("dpmpp_2m", 10), ("heun", 19)]
)
def test_the_calls_of_a_sampler_are_counted(sampler: str, calls: int) -> None:
    assert calls_of(sampler, 10) == calls
