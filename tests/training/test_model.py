"""What is shared, what is not, and where position may go."""

from dataclasses import replace

import pytest
import torch

from components.contracts.errors import UsageError
from components.contracts.spec import Feature, FeatureSpec
from components.training.config import CANDIDATES
from components.training.data import Rows
from components.training.losses import ctr_loss
from components.training.model import FunnelNetwork
from components.training.objective import Objective
from components.training.tables import Column, Layout

LAYOUT = Layout(
    shared=(Column(0, 9, 4), Column(1, 5, 2), Column(3, 6, 4)),
    ctr_only=(Column(2, 7, 4),),
    dense_shared=(0, 1),
    dense_ctr_only=(2, 3),
)
SIZES = (9, 5, 7, 6)
NOTHING = torch.zeros(2, 0)


def network(name: str = "esmm", layout: Layout = LAYOUT) -> FunnelNetwork:
    torch.manual_seed(0)
    net = FunnelNetwork(layout, (16, 8), CANDIDATES[name], deviation=0.5)
    net.start_at(0.3, 0.1)  # DIVISION's ratio is cut at 1, where nothing moves it
    return net


def batch(rows: int = 64) -> Rows:
    generator = torch.Generator().manual_seed(1)
    ids = torch.stack([torch.randint(0, size, (rows,), generator=generator) for size in SIZES], 1)
    click = (torch.rand(rows, generator=generator) < 0.5).float()
    dense = torch.randn(rows, 4, generator=generator)
    return Rows(ids, dense, torch.zeros(rows, 0), click, click * (ids[:, 0] % 2))


def loss(name: str, net: FunnelNetwork, rows: Rows) -> torch.Tensor:
    return Objective(CANDIDATES[name], torch.device("cpu"))(net.outputs(*rows.inputs), rows)


def grads(module: torch.nn.Module) -> list[torch.Tensor]:
    return [p.grad.to_dense() if p.grad is not None else torch.zeros_like(p) for p in module.parameters()]


def silent(module: torch.nn.Module) -> bool:
    return all(float(g.abs().sum()) == 0 for g in grads(module))


@pytest.mark.parametrize("name", CANDIDATES)
def test_position_moves_pctr_and_never_pcvr(name: str) -> None:
    net, rows = network(name), batch()
    moved = rows.ids.clone()
    moved[:, 2] = (moved[:, 2] + 3) % 7
    other = rows.dense.clone()
    other[:, 2:] += 1
    before, after = net(*rows.inputs), net(moved, rows.dense, rows.weights)
    assert (before[0] != after[0]).all()
    assert torch.equal(before[1], after[1])
    after = net(rows.ids, other, rows.weights)
    assert (before[0] != after[0]).all()
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("name", CANDIDATES)
def test_position_has_rows_of_its_own_outside_the_bottom(name: str) -> None:
    net = network(name)
    assert [p.shape for p in net.ctr_tables.parameters()] == [(5, 2), (15, 4)]
    assert [p.shape for p in net.position_tables.parameters()] == [(7, 4)]
    net(*batch().inputs)[1].sum().backward()
    assert silent(net.position_tables)


def test_columns_of_one_table_do_not_read_each_other() -> None:
    net, rows = network(), batch()
    seen = {
        id(table): {int(r) for r in range(table.shape[0])} for table in net.ctr_tables.parameters()
    }  # every row is some column's: 5 of width 2; 9 + 6 of width 4
    assert sorted(len(rows) for rows in seen.values()) == [5, 15]
    first = torch.zeros(1, 4, dtype=torch.long)
    last = torch.tensor([[8, 4, 6, 5]])
    for ids, wide in ((first, [0, 9]), (last, [8, 14])):
        net.zero_grad()
        net(ids, rows.dense[:1], NOTHING)[1].sum().backward()
        touched = net.ctr_tables.tables[1].grad.to_dense().abs().sum(1).nonzero().flatten().tolist()
        assert touched == wide


def test_esmm_shares_rows_and_both_tasks_train_them() -> None:
    net, rows = network("esmm"), batch()
    assert net.cvr_tables is net.ctr_tables
    a, b = net(*rows.inputs)
    for logit in (a, b):
        net.zero_grad()
        logit.sum().backward(retain_graph=True)
        assert not silent(net.ctr_tables)


@pytest.mark.parametrize("name", ["esmm-ns", "base"])
def test_without_sharing_no_row_serves_both_tasks(name: str) -> None:
    net, rows = network(name), batch()
    storages = [{p.untyped_storage().data_ptr() for p in t.parameters()} for t in (net.ctr_tables, net.cvr_tables)]
    assert not storages[0] & storages[1]
    a, b = net(*rows.inputs)
    ctr_loss(a, rows.click).backward(retain_graph=True)
    assert not silent(net.ctr_tables)
    assert silent(net.cvr_tables)
    assert silent(net.cvr_tower)
    net.zero_grad()
    b.sum().backward()
    assert silent(net.ctr_tables)
    assert not silent(net.cvr_tables)


def test_base_learns_conversions_from_clicked_rows_alone() -> None:
    net, rows = network("base"), batch()
    unclicked = replace(rows, click=torch.zeros(64), conversion=torch.zeros(64))
    loss("base", net, unclicked).backward()
    assert silent(net.cvr_tables)
    assert silent(net.cvr_tower)
    assert not silent(net.ctr_tower)

    changed = rows.ids.clone()
    changed[rows.click == 0] = 0
    found = []
    for ids in (rows.ids, changed):
        net.zero_grad()
        loss("base", net, replace(rows, ids=ids)).backward()
        found.append(grads(net.cvr_tower))
    assert all(torch.allclose(x, y, atol=1e-7) for x, y in zip(*found, strict=True))


def test_esmm_learns_conversions_from_rows_without_a_click_too() -> None:
    net, rows = network("esmm-ns"), batch()
    unclicked = replace(rows, click=torch.zeros(64), conversion=torch.zeros(64))
    loss("esmm-ns", net, unclicked).backward()
    assert not silent(net.cvr_tables)
    assert not silent(net.cvr_tower)


def test_forward_and_gradient_of_a_network_worked_out_by_hand() -> None:
    """One id of width 1 and no hidden layer: logits are w * e + c in both towers."""
    net = FunnelNetwork(Layout((Column(0, 3, 1),), (), (), ()), (), CANDIDATES["esmm"])
    with torch.no_grad():
        net.ctr_tables.tables[0].copy_(torch.tensor([[0.0], [1.0], [-2.0]]))
        net.ctr_tower.last.weight.fill_(0.5)
        net.ctr_tower.last.bias.fill_(0.1)
        net.cvr_tower.last.weight.fill_(-1.0)
        net.cvr_tower.last.bias.fill_(0.2)
    ids = torch.tensor([[1], [2]])
    a, b = net(ids, NOTHING, NOTHING)
    assert a.tolist() == pytest.approx([0.6, -0.9])
    assert b.tolist() == pytest.approx([-0.8, 2.2])
    rows = Rows(ids, NOTHING, NOTHING, torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]))
    loss("esmm", net, rows).backward()
    s = torch.sigmoid(torch.tensor([0.6, -0.9, -0.8, 2.2], dtype=torch.float64)).tolist()
    # Row 1: click and conversion. Each loss is a mean of two rows.
    row_1 = (0.5 * (s[0] - 1) + 0.5 * (s[0] - 1) - 1.0 * (s[2] - 1)) / 2
    p = s[1] * s[3]
    row_2 = (0.5 * s[1] + 0.5 * (1 - s[1]) * p / (1 - p) - 1.0 * (1 - s[3]) * p / (1 - p)) / 2
    assert net.ctr_tables.tables[0].grad.to_dense().flatten().tolist() == pytest.approx([0, row_1, row_2], rel=1e-5)


def test_it_starts_at_the_base_rates() -> None:
    net = network()
    net.start_at(0.1, 0.03)
    with torch.no_grad():
        for tower in (net.ctr_tower, net.cvr_tower):
            tower.last.weight.zero_()
    a, b = net(*batch().inputs)
    assert torch.sigmoid(a).tolist() == pytest.approx([0.1] * 64)
    assert torch.sigmoid(b).tolist() == pytest.approx([0.03] * 64)


def feature(name: str, encoding: str, tower: str = "shared") -> Feature:
    return Feature(name=name, source="context", dtype="int", encoding=encoding, tower=tower, dimension=3)


def test_layout_follows_the_spec() -> None:
    spec = FeatureSpec(
        features=(
            feature("n1", "numeric", "ctr"),
            feature("hour", "id"),
            feature("position", "id", "ctr"),
            feature("n2", "numeric"),
            feature("b", "bucket"),
        )
    )
    assert Layout.of(spec, (5, 6, 7), (1, 1, 1)) == Layout(
        (Column(0, 5, 3), Column(2, 7, 3)), (Column(1, 6, 3),), (2, 3), (0, 1)
    )
    assert Layout.of(spec, (5, 6, 7), (1, 1, 1), dimension=8).ctr_only == (Column(1, 6, 8),)


def test_a_spec_of_position_alone_has_nothing_to_predict_conversions_from() -> None:
    with pytest.raises(UsageError, match="nothing is left"):
        Layout.of(FeatureSpec(features=(feature("position", "id", "ctr"),)), (5,), (1,))
