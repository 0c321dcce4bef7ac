import pytest
import torch
import toy
from torch import nn

from training.config import resolve_config
from training.devices import launch
from training.family import OptimizerSpec
from training.optimize import Updates, learning_rate_factor


def fabric():
    return launch(resolve_config(toy.FAMILY, {"data": "toy", "accelerator": "cpu"}, {}))


def pair() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 1)})


SPECS = {
    "a": OptimizerSpec(networks=("a",), lr=0.1, betas=(0.5, 0.9), clip_norm=0.01),
    "b": OptimizerSpec(networks=("b",), lr=0.1),
}


def test_an_update_moves_the_named_networks_alone_and_leaves_no_gradient_elsewhere():
    networks = pair()
    before = {name: p.clone() for name, p in networks.named_parameters()}
    updates = Updates(fabric(), networks, SPECS)
    updates("a", networks["b"](networks["a"](torch.ones(2, 3))).sum())
    assert not torch.equal(networks["a"].weight, before["a.weight"])
    assert torch.equal(networks["b"].weight, before["b.weight"])
    assert networks["b"].weight.grad is None


def test_updates_agree_with_adam_and_clipping_of_torch():
    networks, reference = pair(), pair()
    updates = Updates(fabric(), networks, SPECS)
    adam = torch.optim.Adam(reference["a"].parameters(), lr=0.1, betas=(0.5, 0.9))
    for step in range(5):
        x = torch.full((2, 3), 1.0 + step)
        updates.factor = 1 - step / 5
        updates("a", networks["b"](networks["a"](x)).square().sum())
        reference.zero_grad()
        reference["b"](reference["a"](x)).square().sum().backward()
        nn.utils.clip_grad_norm_(reference["a"].parameters(), 0.01)
        adam.param_groups[0]["lr"] = 0.1 * updates.factor
        adam.step()
    assert torch.allclose(networks["a"].weight, reference["a"].weight, atol=1e-6)


def test_two_updates_may_share_a_forward_pass_and_penalise_gradients():
    networks = pair()
    updates = Updates(fabric(), networks, SPECS)
    x = torch.ones(2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(networks["b"](x).sum(), x, create_graph=True)
    updates("b", gradient.square().sum())
    assert networks["b"].weight.grad is not None


def test_an_optimizer_that_does_not_exist_is_named():
    with pytest.raises(KeyError, match="optimizer 'c' is not one of a, b"):
        Updates(fabric(), pair(), SPECS)("c", torch.zeros(()))


def test_moments_come_back():
    networks = pair()
    updates = Updates(fabric(), networks, SPECS)
    updates("a", networks["a"](torch.ones(2, 3)).sum())
    state = {k: v.clone() for k, v in updates.state().items()}
    assert {key.split("/")[0] for key in state} == {"a"}
    other = Updates(fabric(), networks, SPECS)
    other.load(state)
    assert all(torch.equal(value, state[key]) for key, value in other.state().items())


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [("constant", [0.5, 1, 1, 1]), ("linear", [0.5, 1, 2 / 3, 1 / 3]), ("cosine", [0.5, 1, 0.75, 0.25])],
)
def test_learning_rates_rise_then_follow_their_schedule(schedule, factors):
    got = [learning_rate_factor(schedule, 1, step, 4) for step in range(4)]
    assert got == pytest.approx(factors)
