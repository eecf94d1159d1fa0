"""One training step: against plain autograd, resumed, repeated, in bfloat16, compiled, without waiting for a GPU."""

import shutil
from copy import deepcopy
from typing import Any

import pytest
import torch

from components.training.config import CANDIDATES, TrainingConfig
from components.training.data import Rows
from components.training.model import FunnelNetwork
from components.training.objective import Objective
from components.training.step import Step
from components.training.tables import Column, Layout

LAYOUT = Layout(
    shared=(Column(0, 30, 4), Column(1, 20, 2), Column(3, 25, 4), Column(4, 15, 4, 3, 0)),
    ctr_only=(Column(2, 7, 4),),
    dense_shared=(0, 1),
    dense_ctr_only=(2, 3),
)
"""Two dimensions, a bag of three, a position, numeric features for both towers and for one."""
SIZES = (30, 20, 7, 25, 15, 15, 15)


def network(name: str, hidden: tuple[int, ...] = (8, 4), device: str = "cpu") -> FunnelNetwork:
    torch.manual_seed(0)
    return FunnelNetwork(LAYOUT, hidden, CANDIDATES[name], deviation=0.1).to(device)


def batch(rows: int = 64, seed: int = 1, device: str = "cpu") -> Rows:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randint(0, size, (rows,), generator=generator) for size in SIZES], 1).int()
    click = (torch.rand(rows, generator=generator) < 0.5).float()
    drawn = torch.rand(rows, 3, generator=generator)
    dense = torch.randn(rows, 4, generator=generator)
    parts = (ids, dense, drawn * (drawn > 0.3), click, click * (ids[:, 0] % 2))
    return Rows(*(part.to(device) for part in parts))


def config(**options: Any) -> TrainingConfig:
    return TrainingConfig(**{"hidden": (8, 4), **options})


def plain(net: FunnelNetwork, name: str, batches: list[Rows]) -> None:
    """The same steps as one would write them: whole tables in the graph, Adam as it comes, Adagrad over all rows."""
    settings = config()
    objective = Objective(CANDIDATES[name], torch.device("cpu"))
    towers = torch.optim.Adam(net.dense_parameters(), lr=settings.lr)
    totals = [torch.zeros(len(table)) for table in net.embedding_parameters()]
    drawing = Step(deepcopy(net), CANDIDATES[name], settings)
    for rows in batches:
        net.zero_grad()
        draw = drawing.draw(len(rows), rows.click.device)
        objective(net.outputs(*rows.inputs), rows, draw).backward()
        towers.step()
        drawing.count += 1
        with torch.no_grad():
            for table, total in zip(net.embedding_parameters(), totals, strict=True):
                assert table.grad is not None
                gradient = table.grad.to_dense()
                total += gradient.square().mean(1)
                table -= settings.embedding_lr * gradient / (total.sqrt() + 1e-10).unsqueeze(1)


@pytest.mark.parametrize("name", CANDIDATES)
def test_three_steps_are_those_of_plain_autograd(name: str) -> None:
    ours, theirs = network(name), network(name)
    step = Step(ours, CANDIDATES[name], config())
    batches = [batch(seed=seed) for seed in range(3)]
    for rows in batches:
        loss = step(rows)
        assert loss.shape == ()
        assert not loss.requires_grad
    plain(theirs, name, batches)
    assert step.count == 3
    start = dict(network(name).named_parameters())
    for (key, found), wanted in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # Sums in another order. A first step of Adagrad has full length however small a gradient, so rounding shows.
        assert torch.allclose(found, wanted, atol=1e-4), key
        assert not torch.equal(found, start[key]), f"{key} was not trained"


@pytest.mark.parametrize("name", ["esmm", "unbias", "escm2-dr", "esmm-ple"])
def test_a_step_goes_on_from_its_state_to_the_same_bytes(name: str) -> None:
    batches = [batch(seed=seed) for seed in range(6)]
    whole = network(name)
    step = Step(whole, CANDIDATES[name], config())
    for rows in batches[:3]:
        step(rows)
    half, state = deepcopy(whole), step.state_dict()
    for rows in batches[3:]:
        step(rows)
    later = Step(half, CANDIDATES[name], config())
    later.load_state_dict(state)
    for rows in batches[3:]:
        later(rows)
    assert later.count == 6
    assert later.objective.report() == step.objective.report()
    for found, wanted in zip(half.parameters(), whole.parameters(), strict=True):
        assert torch.equal(found, wanted)
    again = later.state_dict()
    assert all(torch.equal(again[key], value) for key, value in step.state_dict().items())
    assert state["count"] == 3, "a state is a copy"


def test_a_state_that_lacks_a_part_is_refused() -> None:
    step = Step(network("esmm"), CANDIDATES["esmm"], config())
    state = step.state_dict()
    del state["tables.1"]
    with pytest.raises(KeyError, match=r"tables\.1"):
        step.load_state_dict(state)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_equal_steps_give_equal_bytes_on_two_threads(precision: str) -> None:
    """Batches large enough for kernels to be split between threads, and rows that are read many times."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = []
        for _ in range(2):
            net = network("escm2-dr", hidden=(64, 32))
            step = Step(net, CANDIDATES["escm2-dr"], config(hidden=(64, 32), precision=precision))
            losses = [float(step(batch(4096, seed))) for seed in range(4)]
            found.append((losses, [p.detach().clone() for p in net.parameters()]))
    finally:
        torch.set_num_threads(before)
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


@pytest.mark.parametrize("name", CANDIDATES)
def test_bfloat16_products_over_float32_weights(name: str) -> None:
    """The loss is near that of float32 and not equal to it; weights, optimizers and logits are float32."""
    rows = batch(2048)
    net = network(name, hidden=(64, 32))
    step = Step(net, CANDIDATES[name], config(hidden=(64, 32), precision="bf16"))
    _, read = step.read(rows)
    outputs = step.outputs(read, rows)
    assert outputs.ctr.dtype == outputs.cvr.dtype == torch.float32
    # Logits in bfloat16 would be a few hundred values at most: eight bits of them between two powers of two.
    assert len(torch.unique(outputs.ctr)) > 1900
    wanted = Step(network(name, hidden=(64, 32)), CANDIDATES[name], config(hidden=(64, 32), precision="fp32"))(rows)
    loss = step(rows)
    assert loss != wanted
    # bfloat16 has eight significant bits: 0.4% of a product, less of a mean over rows.
    assert float(loss) == pytest.approx(float(wanted), rel=4e-3)
    kinds = {p.dtype for p in net.parameters()} | {t.dtype for key, t in step.state_dict().items() if "." in key[:7]}
    assert kinds <= {torch.float32, torch.float64}


def test_auto_is_bfloat16_on_a_gpu_alone() -> None:
    assert config().products("cuda") == "bf16"
    assert config().products("cpu") == "fp32"
    assert config(precision="bf16").products("cpu") == "bf16"
    assert config(precision="fp32").products("cuda") == "fp32"


def trained(name: str, **options: Any) -> list[torch.Tensor]:
    net = network(name)
    step = Step(net, CANDIDATES[name], config(**options))
    for seed in range(3):
        step(batch(seed=seed))
    # The last batch of a pass is shorter.
    step(batch(33, seed=9))
    return [p.detach() for p in net.parameters()]


@pytest.mark.parametrize("name", ["esmm", "escm2-dr"])
def test_the_compiled_part_is_one_graph_and_the_same_function(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured as for a compiler, forward and backward, and run as it is: no compiler is needed."""
    calls: list[dict[str, Any]] = []
    real = torch.compile

    def captured(function: Any, **options: Any) -> Any:
        calls.append(options)
        return real(function, **options, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", captured)
    for found, wanted in zip(trained(name, compile=True), trained(name), strict=True):
        assert torch.allclose(found, wanted, atol=1e-5)
    assert [options["fullgraph"] for options in calls] == [True]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_by_inductor(precision: str) -> None:
    found, wanted = (trained("esmm", precision=precision, compile=compiled) for compiled in (True, False))
    for ours, theirs in zip(found, wanted, strict=True):
        # Fused kernels round otherwise; in bfloat16 by its eight bits, on steps of up to 0.1.
        assert torch.allclose(ours, theirs, atol=1e-4 if precision == "fp32" else 2e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_step_waits_for_the_gpu(name: str, precision: str) -> None:
    step = Step(network(name, device="cuda"), CANDIDATES[name], config(precision=precision))
    rows = batch(device="cuda")
    # The first step allocates, and loads kernels.
    step(rows)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            step(rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert step.count == 4
