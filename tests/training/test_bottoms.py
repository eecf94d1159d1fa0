"""What mixes between embeddings and towers: shapes, who sees whose experts, and a gate by hand."""

import pytest
import torch

from components.training.bottoms import PLE, Experts, Gate, MMoE, Shared, bottom_of


def silent(module: torch.nn.Module) -> bool:
    return all(p.grad is None or not bool(p.grad.any()) for p in module.parameters())


@pytest.mark.parametrize(("kind", "width"), [("shared", 6), ("mmoe", 5), ("ple", 5)])
def test_one_representation_in_and_one_a_task_out(kind: str, width: int) -> None:
    bottom = bottom_of(kind, 6, experts=3, width=5)
    ctr, cvr = bottom(torch.randn(7, 6))
    assert bottom.width == width
    assert ctr.shape == cvr.shape == (7, width)
    assert torch.equal(ctr, cvr) == (kind == "shared")


def test_without_inputs_there_is_nothing_to_mix() -> None:
    assert isinstance(bottom_of("ple", 0, experts=3, width=5), Shared)


def test_a_gate_is_a_softmax_over_experts() -> None:
    experts, gate = Experts(1, 2, 1), Gate(1, 2)
    with torch.no_grad():
        experts.layer.weight.copy_(torch.tensor([[1.0], [2.0]]))
        experts.layer.bias.copy_(torch.tensor([0.0, -8.0]))
        gate.layer.weight.copy_(torch.tensor([[0.0], [1.0]]))
        gate.layer.bias.zero_()
    x = torch.tensor([[3.0], [5.0]])
    # Experts say relu(x) and relu(2x - 8); the second's share is s(x).
    s = torch.sigmoid(x)
    assert torch.allclose(gate(x, experts(x)), (1 - s) * x + s * torch.relu(2 * x - 8))


def test_with_mmoe_both_tasks_train_every_expert_and_with_ple_only_the_common_ones() -> None:
    x = torch.randn(32, 6)
    mmoe = MMoE(6, 3, 5)
    mmoe(x)[0].sum().backward()
    assert not silent(mmoe.experts)
    assert silent(mmoe.gates[1])
    ple = PLE(6, 3, 5)
    ple(x)[0].sum().backward()
    assert not silent(ple.common)
    assert not silent(ple.own[0])
    assert silent(ple.own[1])
    assert silent(ple.gates[1])
