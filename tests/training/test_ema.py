import torch
from torch import nn

from training.ema import Average


def networks() -> nn.ModuleDict:
    return nn.ModuleDict({"a": nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)), "b": nn.Linear(1, 1)})


def test_the_decay_is_ramped_up_as_in_the_recursion_written_out():
    live = networks()
    average = Average(live, ("a",), 0.5)
    expected = live["a"][0].weight.item()
    for step in range(12):
        with torch.no_grad():
            live["a"][0].weight.fill_(float(step))
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert torch.allclose(average.module()["a"][0].weight, torch.tensor(expected))


def test_buffers_and_networks_without_an_average_are_taken_as_they_are():
    live = networks()
    average = Average(live, ("a",), 0.999)
    with torch.no_grad():
        live["b"].weight.fill_(3.0)
    live["a"][1].running_mean.fill_(7.0)
    module = average.module()
    assert module["b"].weight.item() == 3.0
    assert module["a"][1].running_mean.item() == 7.0
    assert not module["a"].training
    assert live["a"].training


def test_the_state_of_an_average_has_the_averaged_networks_alone_and_comes_back():
    live = networks()
    average = Average(live, ("a",), 0.9)
    with torch.no_grad():
        live["a"][0].weight.fill_(3.0)
    average.update(100)
    state = {k: v.clone() for k, v in average.state().items()}
    assert {name.partition(".")[0] for name in state} == {"a"}
    other = Average(live, ("a",), 0.9)
    other.load(state)
    assert torch.equal(other.module()["a"][0].weight, state["a.0.weight"])
