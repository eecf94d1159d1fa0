"""`esmm bench train`: its data, what a contender's process answers, and a small run without the peers."""

import math
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import train, train_data, train_venv
from benchmarks.train_own import ByHand, Ours, Products, flops_a_row
from benchmarks.train_worker import PEERS, Worker

SMALL = {"train": 8192, "test": 4096}
SIZES = train_data.sizes_of(4000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training") / "data"
    train_data.write(path, 4000, 0, SMALL)
    return path


@pytest.mark.parametrize("rows", [4000, *train_data.EMBEDDING_ROWS.values()])
def test_vocabularies_add_up_to_the_rows_asked_for(rows: int) -> None:
    sizes = train_data.sizes_of(rows)
    assert len(sizes) == train_data.FIELDS
    assert sum(sizes) == rows
    assert min(sizes) >= 2


def test_labels_follow_their_true_probabilities(folder: Path) -> None:
    found = train_data.read(folder, "train")
    assert len(found) == 8192
    assert (found.ids >= 0).all()
    assert (found.ids < np.array(SIZES)).all()
    assert (found.conversion <= found.click).all()
    clicked = found.click > 0
    for label, p in ((found.click, found.p_click), (found.conversion[clicked], found.p_conversion[clicked])):
        # Four standard errors of a mean of independent draws.
        assert abs(label.mean() - p.mean()) < 4 * math.sqrt((p * (1 - p)).mean() / len(p))
    found = train_data.aucs(found.p_click, found.p_click * found.p_conversion, found)
    assert min(found.values()) > 0.7, "there is something to learn"


def test_another_part_is_another_draw_of_the_same_world(folder: Path) -> None:
    train_rows, test_rows = (train_data.read(folder, part) for part in SMALL)
    assert not np.array_equal(train_rows.ids[:4096], test_rows.ids)

    def of_one_value(found: train_data.Impressions) -> dict[tuple[int, ...], float]:
        return {tuple(ids): float(p) for ids, p in zip(found.ids.tolist(), found.p_click, strict=True)}

    again = train_data.draw(SIZES, 8192, 0, 0)
    assert of_one_value(again) == of_one_value(train_rows)
    other = train_data.draw(SIZES, 8192, 1, 0)
    assert not np.array_equal(other.p_click, again.p_click)


def test_ours_learns_and_says_how_long_it_took(folder: Path) -> None:
    ours = Ours(folder, SIZES, "cpu", "fp32")
    assert ours.steps(3) == 2 * 4096 + 4096
    assert ours.learn(0) > 0
    pctr, pctcvr = ours.predictions()
    assert pctr.shape == pctcvr.shape == (4096,)
    assert (pctcvr <= pctr).all()
    assert 0 < ours.learn_until(0, 0.5) < math.inf
    assert ours.learn_until(0, 1.1, passes=1) == math.inf
    assert ours.epoch() > 0


def test_the_loop_by_hand_takes_the_same_steps(folder: Path) -> None:
    """Same start, same batches: the same weights but for rounding, so that only speed is compared."""
    ours, theirs = Ours(folder, SIZES, "cpu", "fp32"), ByHand(folder, SIZES, "cpu")
    with torch.no_grad():
        theirs.table.weight.copy_(ours.network.ctr_tables.tables[0])
        for tower, other in zip(theirs.towers, (ours.network.ctr_tower, ours.network.cvr_tower), strict=True):
            for mine, its in zip(tower.parameters(), other.parameters(), strict=True):
                mine.copy_(its)
    assert theirs.steps(1) == 4096
    ours.step(ours.train.take(slice(0, 4096)))
    table = ours.network.ctr_tables.tables[0]
    assert torch.allclose(theirs.table.weight, table, atol=1e-5)
    assert torch.allclose(theirs.towers[1][0].weight, ours.network.cvr_tower.hidden[0].weight, atol=1e-5)
    theirs.steps(1)
    ours.step(ours.train.take(slice(4096, 8192)))
    # A hidden unit at zero may be on here and off there by rounding, and a row's step is long: a few rows differ.
    assert float(((theirs.table.weight - table).abs() > 1e-4).float().mean()) < 0.002


def test_products_are_those_of_a_step(folder: Path) -> None:
    products = Products(folder, SIZES, "cpu", "fp32")
    assert products.steps(2) == 2 * 4096
    multiplied = sum(x.shape[1] * weight.shape[0] for x, weight, _ in products.layers)
    assert flops_a_row(16) == 6 * multiplied == 883_200


def test_a_contender_in_its_process_answers_and_says_why_it_failed(folder: Path) -> None:
    with Worker("by_hand", Path(sys.executable), folder, SIZES, "cpu", 1) as worker:
        assert worker("steps", 1) == 4096
        with pytest.raises(SystemExit, match=r"(?s)by_hand failed: .*no attribute 'fly'"):
            worker("fly")
    assert worker.process.poll() is not None


def test_a_run_has_every_ratio_that_needs_no_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "multiplies_bf16", lambda device: False)
    plan = train.Plan(SMALL, {"380k": 4000}, rounds=1, steps={}, peer_steps=(1,), threads=1, peers=())
    figures, ratios = train.train_figures(plan)
    assert set(ratios) == {
        "train_vs_handwritten_380k", "train_fp32_vs_handwritten_380k", "share_of_products_fp32_380k",
    }  # fmt: skip
    assert all(0 < value < math.inf for value in ratios.values())
    assert figures["380k_products_fp32_gflop_per_s"]["median"] > 0


def test_rates_are_compared_with_every_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "peers_python", Path)
    monkeypatch.setattr(train, "multiplies_bf16", lambda device: True)
    monkeypatch.setattr(train, "compiles", lambda: True)
    bench = train.Bench(train.Plan(SMALL, {"380k": 4000}), "cpu")
    bare = {"products_fp32": 200.0, "products_bf16": 400.0}
    ours = {"esmm_fp32": 120.0, "esmm_bf16": 180.0, "esmm_compiled": 210.0}
    ratios = bench.compared(ours | {"by_hand": 100.0, **bare, "deepctr": 45.0, "ready_deepctr": 60.0}, "380k")
    assert ratios == {
        "train_vs_handwritten_380k": 1.8, "train_vs_deepctr_380k": 4.0, "train_vs_ready_deepctr_380k": 3.0,
        "train_compiled_vs_not_380k": pytest.approx(7 / 6), "train_compiled_vs_handwritten_380k": 2.1,
        "train_compiled_vs_deepctr_380k": pytest.approx(14 / 3), "train_compiled_vs_ready_deepctr_380k": 3.5,
        "train_fp32_vs_handwritten_380k": 1.2, "share_of_products_fp32_380k": 0.6, "share_of_products_bf16_380k": 0.45,
    }  # fmt: skip


@pytest.mark.parametrize(("cxx", "there"), [(sys.executable, True), ("/no/such/compiler", False)])
def test_a_compiled_contender_wants_a_compiler(monkeypatch: pytest.MonkeyPatch, cxx: str, there: bool) -> None:
    monkeypatch.setenv("CXX", cxx)
    monkeypatch.setattr(train, "multiplies_bf16", lambda device: True)
    bench = train.Bench(train.Plan(SMALL, {"380k": 4000}, peers=()), "cpu")
    assert bench.compiled == (("esmm_compiled",) if there else ())


class Told:
    """A contender whose answers are written down: those of a call by its number."""

    def __init__(self, **answers: list[object]) -> None:
        self.answers = answers

    def __call__(self, do: str, *arguments: object) -> object:
        if do == "learn_until":
            assert arguments[1] == pytest.approx(0.7 + 0.01 * arguments[0]), "the peer's AUC with the same seed"
        return self.answers[do].pop(0)


def told_bench(monkeypatch: pytest.MonkeyPatch, contenders: dict[str, Told], seeds: int = 2) -> train.Bench:
    monkeypatch.setattr(train, "peers_python", Path)
    monkeypatch.setattr(train, "multiplies_bf16", lambda device: False)
    bench = train.Bench(train.Plan(SMALL, {"380k": 4000}, seeds=seeds), "cpu")
    monkeypatch.setattr(bench, "at_work", lambda names, *rest: nullcontext({name: contenders[name] for name in names}))
    return bench


def test_an_epoch_and_a_quality_are_compared_seed_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = told_bench(
        monkeypatch,
        {
            "esmm_fp32": Told(epoch=[2.0, 4.0], learn_until=[1.0, 3.0]),
            "deepctr": Told(epoch=[12.0, 12.0], learn=[8.0, 12.0], aucs=[{"ctcvr": 0.7}, {"ctcvr": 0.71}]),
        },
    )
    figures, ratios = bench.passes()
    assert ratios == {"epoch_vs_deepctr_380k": 4.0, "time_to_quality_vs_deepctr_380k": 5.0}
    assert figures["deepctr_one_epoch_ctcvr_auc"]["max"] == 0.71


def test_quality_is_a_paired_difference_to_the_best_peer_of_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    def aucs(*values: tuple[float, float, float]) -> Told:
        found = [dict(zip(train.TASKS, each, strict=True)) for each in values]
        return Told(aucs=list(found), learn=[1.0] * len(found))

    contenders = {
        "esmm_fp32": aucs((0.7, 0.6, 0.8), (0.72, 0.64, 0.8)),
        "deepctr": aucs((0.7, 0.5, 0.7), (0.7, 0.5, 0.7)),
        "rechub": aucs((0.6, 0.6, 0.6), (0.6, 0.6, 0.6)),
    }
    figures = told_bench(monkeypatch, contenders).quality()
    assert figures["rechub_cvr_auc"]["median"] == 0.6
    difference = figures["esmm_fp32_less_deepctr_ctr_auc"]
    # 0 and 0.02: mean 0.01, standard error 0.01, and Student's t for one degree of freedom, 12.706.
    assert difference["median"] == pytest.approx(0.01)
    assert difference["min"] == pytest.approx(0.01 - 0.12706, abs=1e-5)
    assert difference["max"] == pytest.approx(0.01 + 0.12706, abs=1e-5)
    assert "esmm_fp32_less_rechub_cvr_auc" in figures
    assert figures["esmm_fp32_less_deepctr_ctcvr_auc"]["min"] == pytest.approx(0.1)


def test_no_gpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no usable GPU"):
        train.train_figures(device="cuda")


def test_peers_that_cannot_be_installed_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip's own failure, from an index that is not there; a second call tries again."""
    wanted = tmp_path / "peers.txt"
    wanted.write_text("a-peer-that-does-not-exist==1.0\n")
    monkeypatch.setattr(train_venv, "REQUIREMENTS", wanted)
    for name, value in {
        "PIP_INDEX_URL": (tmp_path / "no-index").as_uri(),
        "PIP_RETRIES": "0",
        "PIP_NO_INDEX": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=r"PyPI, which has to be reachable once .* a-peer-that-does-not-exist"):
        train_venv.peers_python(tmp_path)
    assert not (tmp_path / "bench" / "peers" / train_venv.STAMP).exists()


def test_the_peers_venv_sees_this_environments_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = tmp_path / "peers.txt"
    wanted.write_text("click\n")
    monkeypatch.setattr(train_venv, "REQUIREMENTS", wanted)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    python = train_venv.peers_python(tmp_path)
    said = subprocess.run(
        [str(python), "-c", "import torch; print(torch.__file__)"], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == torch.__file__
    made = python.stat().st_mtime_ns
    assert train_venv.peers_python(tmp_path) == python
    assert python.stat().st_mtime_ns == made


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_trains_and_predicts(name: str, folder: Path) -> None:
    pytest.importorskip({"deepctr": "deepctr_torch", "rechub": "torch_rechub"}[name], reason="the peers are not here")
    with Worker(name, Path(sys.executable), folder, SIZES, "cpu", 1) as worker:
        assert worker("steps", 1) == worker("ready_steps", 1) == 4096
        assert worker("learn", 0) > 0
        assert set(worker("aucs")) == set(train.TASKS)
