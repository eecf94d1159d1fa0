"""Bags in the network: pooled as the encoder says, trained as the sum says, and really used."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch.nn.functional import embedding

from components.contracts.artifacts import read_model
from components.contracts.errors import DataError
from components.contracts.files import read_json, read_manifest, write_manifest
from components.contracts.spec import Feature, FeatureSpec
from components.scoring.encoder import Encoder
from components.scoring.raw import Column, Ragged
from components.scoring.score import Scorer
from components.training import data, fit
from components.training.config import CANDIDATES
from components.training.data import Rows, load
from components.training.export import TOLERANCE
from components.training.model import FunnelNetwork
from components.training.optimizer import RowwiseAdagrad
from components.training.tables import Column as Place
from components.training.tables import Layout, Tables
from components.training.train import run

CPU = torch.device("cpu")
NOTHING = torch.zeros(2, 0)
LAYOUT = Layout(
    shared=(Place(0, 9, 4), Place(1, 5, 4, 3, 0), Place(7, 6, 2, 2, 5)),
    ctr_only=(Place(4, 7, 4), Place(5, 8, 4, 2, 3)),
    dense_shared=(),
    dense_ctr_only=(),
)
"""ids: one value, a bag of 3, one value and a bag of 2 for the CTR tower alone, a bag of 2 of another dimension."""
SIZES = (9, 5, 5, 5, 7, 8, 8, 6, 6)


def batch(rows: int = 64) -> Rows:
    generator = torch.Generator().manual_seed(1)
    ids = torch.stack([torch.randint(0, size, (rows,), generator=generator) for size in SIZES], 1).int()
    click = (torch.rand(rows, generator=generator) < 0.5).float()
    weights = torch.rand(rows, 7, generator=generator)
    return Rows(ids, torch.zeros(rows, 0), weights, click, click * (ids[:, 0] % 2))


def network(name: str = "esmm") -> FunnelNetwork:
    torch.manual_seed(0)
    net = FunnelNetwork(LAYOUT, (16, 8), CANDIDATES[name], deviation=0.5)
    net.start_at(0.3, 0.1)  # DIVISION's ratio is cut at 1, where nothing moves it
    return net


def moved(before: torch.Tensor, after: torch.Tensor) -> bool:
    """Nearly all rows: a hidden layer of four may happen to be silent for one."""
    return float((before != after).float().mean()) > 0.9


def test_the_layout_knows_widths_and_places() -> None:
    def feature(name: str, encoding: str, tower: str = "shared") -> Feature:
        dtype = "strings" if encoding == "bag" else "int"
        return Feature(name=name, source="context", dtype=dtype, encoding=encoding, tower=tower, dimension=3)

    spec = FeatureSpec(
        features=(
            feature("tags", "bag"),
            feature("hour", "id"),
            feature("n", "numeric"),
            feature("shown_with", "bag", "ctr"),
            feature("b", "bucket"),
        )
    )
    layout = Layout.of(spec, (5, 6, 7, 8), (4, 1, 1, 1))
    assert layout.shared == (Place(0, 5, 3, 4, 0), Place(4, 6, 3), Place(6, 8, 3))
    assert layout.ctr_only == (Place(5, 7, 3, 1, 4),)
    assert layout.ctr_only[0].is_bag, "a bag of width 1 is one, and has a coefficient"


def test_pooled_embeddings_are_the_weighted_sums() -> None:
    net, rows = network(), batch()
    two, four = net.ctr_tables.tables
    first, single, second = net.ctr_tables(rows.ids, rows.weights)
    assert torch.equal(single, embedding(rows.ids[:, 0], four))
    for found, table, ids, weights in (
        (first, two, rows.ids[:, 7:9], rows.weights[:, 5:7]),
        (second, four[9:], rows.ids[:, 1:4], rows.weights[:, :3]),
    ):
        by_hand = sum(weights[:, k : k + 1] * table[ids[:, k].long()] for k in range(ids.shape[1]))
        assert torch.allclose(found, by_hand, atol=1e-6)


def test_gradient_of_a_pooled_embedding_worked_out_by_hand() -> None:
    """Two rows, a bag of 3 of dimension 2; the loss is a known combination of the pooled sums."""
    tables = Tables([Place(0, 5, 2, 3, 0)], deviation=1.0)
    ids = torch.tensor([[2, 3, 0], [3, 3, 4]])
    weights = torch.tensor([[0.25, 0.75, 0.0], [2.0, 1.0, 0.5]])
    (pooled,) = tables(ids, weights)
    (pooled * torch.tensor([[1.0, -1.0], [10.0, 100.0]])).sum().backward()
    assert tables.tables[0].grad.to_dense().tolist() == [
        [0.0, 0.0],  # the padding of the first row
        [0.0, 0.0],
        [0.25, -0.25],
        [0.75 + 30.0, -0.75 + 300.0],
        [5.0, 50.0],
    ]


def test_padding_does_not_train_the_row_it_stands_on() -> None:
    """Not through its gradient and not through Adagrad's sum either; a missing bag does train it."""
    for coefficient in (0.0, 1.0):
        torch.manual_seed(0)
        tables = Tables([Place(0, 5, 2, 2, 0)], deviation=1.0)
        before = tables.tables[0].detach().clone()
        optimizer = RowwiseAdagrad(tables.parameters(), lr=0.1)
        for _ in range(3):
            (rows,) = tables.rows(torch.tensor([[2, 0]]))
            read = tables.tables[0].detach()[rows].requires_grad_()
            tables.assembled([read], torch.tensor([[1.0, coefficient]]))[0].sum().backward()
            assert read.grad is not None
            optimizer.step([rows.flatten()], [read.grad.flatten(0, 1)])
        changed = (tables.tables[0] != before).any(1).tolist()
        assert changed == [coefficient > 0, False, True, False, False]
        assert bool(torch.isfinite(tables.tables[0]).all())
        assert (float(optimizer.totals[0][0]) > 0) is (coefficient > 0)


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_bag_of_the_ctr_tower_moves_pctr_and_never_pcvr(name: str) -> None:
    net, rows = network(name), batch()
    before = net(*rows.inputs)
    ids, weights = rows.ids.clone(), rows.weights.clone()
    ids[:, 5] = (ids[:, 5] + 3) % 8
    weights[:, 3:5] += 1
    for changed in ((ids, rows.dense, rows.weights), (rows.ids, rows.dense, weights)):
        after = net(*changed)
        assert moved(before[0], after[0])
        assert torch.equal(before[1], after[1])
    net(*rows.inputs)[1].sum().backward()
    assert all(p.grad is None for p in net.position_tables.parameters())
    weights = rows.weights.clone()
    weights[:, 0] += 1
    after = net(rows.ids, rows.dense, weights)
    assert moved(before[0], after[0])
    assert moved(before[1], after[1])


def test_an_evaluation_in_pieces_is_one_over_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    net, rows = network(), batch()
    whole = fit.predict(net, rows)
    monkeypatch.setattr(data, "LOOKUPS", 9 * 10)
    assert [len(part) for part in fit.chunks(rows)] == [10] * 6 + [4]
    for mine, other in zip(fit.predict(net, rows), whole, strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


def spec(combiner: str = "mean", weighted: bool = True) -> FeatureSpec:
    return FeatureSpec(
        features=(
            Feature(
                name="tags", source="item_context", dtype="strings", encoding="bag", weighted=weighted,
                combiner=combiner, min_count=1, max_values=6, dimension=4,
            ),
            Feature(name="noise", source="context", dtype="int", encoding="id", min_count=1, dimension=4),
            Feature(
                name="shown_with", source="context", dtype="strings", encoding="bag", min_count=1, max_values=2,
                dimension=2, tower="ctr",
            ),
        )
    )  # fmt: skip


def impressions(count: int, seed: int, combiner: str = "mean") -> tuple[dict[str, Column], np.ndarray, np.ndarray]:
    """Only the tags tell anything: each of 10 has an effect, and a bag's is their mean or sum by weight."""
    rng = np.random.default_rng(seed)
    effects = np.linspace(-4, 4, 10) if combiner == "mean" else np.linspace(-1.5, 1.5, 10)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 6, count))]).astype(np.int64)
    tags, weights = rng.integers(0, 10, offsets[-1]), rng.uniform(0.1, 2, offsets[-1])
    rows = np.repeat(np.arange(count), np.diff(offsets))
    score = np.bincount(rows, weights * effects[tags], count)
    if combiner == "mean":
        score /= np.maximum(np.bincount(rows, weights, count), 1e-9)
    columns: dict[str, Column] = {
        "tags": Ragged(np.array([f"t{n}" for n in tags], object), offsets),
        "tags_weights": Ragged(weights, offsets),
        "noise": rng.integers(0, 5, count),
        "shown_with": Ragged(np.array(["x"] * count, object), np.arange(count + 1)),
    }
    click = rng.random(count) < 1 / (1 + np.exp(0.5 - score))
    conversion = click & (rng.random(count) < 1 / (1 + np.exp(0.5 - score)))
    return columns, click, conversion


def write_encoded(folder: Path, combiner: str = "mean", weighted: bool = True, rows: int = 6000) -> Path:
    encoder = Encoder.fit(spec(combiner, weighted), impressions(rows, 0, combiner)[0])
    folder.mkdir(parents=True)
    encoder.save(folder)
    for seed, split in enumerate(("train", "valid")):
        columns, click, conversion = impressions(rows, seed, combiner)
        (folder / split).mkdir()
        for name, array in {**vars(encoder.transform(columns)), "click": click, "conversion": conversion}.items():
            np.save(folder / split / f"{name}.npy", array.astype(np.int32) if name == "ids" else array)
    ranges = {"kind": "hash", "train": ["0", "0.6"], "valid": ["0.6", "0.8"], "test": ["0.8", "1"]}
    write_manifest(folder, ranges=ranges)
    return folder


def entropy(rate: float) -> float:
    return -float(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))


@pytest.mark.parametrize(("candidate", "combiner"), [*((name, "mean") for name in CANDIDATES), ("esmm", "sum")])
def test_a_model_learns_from_bags_alone_and_scores_the_same_from_raw_rows(
    candidate: str, combiner: str, tmp_path: Path, make_config: Any
) -> None:
    encoded = write_encoded(tmp_path / "encoded", combiner)
    facts = run(candidate, make_config(batch_size=64, epochs=2), encoded, tmp_path / "model")
    assert facts["eligible"]
    recorded = read_json(tmp_path / "model" / "metrics.json")
    # A ratio of two small probabilities has the rounding of both their logits.
    assert recorded["onnx_difference"] < (TOLERANCE if candidate == "division" else 1e-6)
    architecture = read_model(tmp_path / "model").architecture
    assert architecture["widths"] == [5, 1, 1]
    assert architecture["pooling"] == f"tags {combiner}, shown_with mean"

    columns, click, conversion = impressions(6000, 1, combiner)
    scores = Scorer(tmp_path / "model").score(columns)
    for predicted, label in ((scores.pctr, click), (scores.pctcvr, conversion)):
        loss = -float(np.where(label, np.log(predicted), np.log1p(-predicted)).mean())
        assert loss < entropy(float(label.mean())) - 0.1
    loss = -float(np.where(conversion, np.log(scores.pctcvr), np.log1p(-scores.pctcvr)).mean())
    assert recorded["validation"]["ctcvr_log_loss"] == pytest.approx(loss, rel=1e-5)


def test_weights_carry_what_values_alone_do_not(tmp_path: Path, make_config: Any) -> None:
    losses = []
    for weighted in (True, False):
        encoded = write_encoded(tmp_path / f"encoded{weighted}", "mean", weighted)
        facts = run("esmm", make_config(batch_size=64), encoded, tmp_path / f"model{weighted}")
        losses.append(facts["validation"]["ctcvr_log_loss"])
    assert losses[0] < losses[1] - 0.005


def test_the_graph_reads_any_number_of_rows_and_padded_bags(tmp_path: Path, make_config: Any) -> None:
    encoded = write_encoded(tmp_path / "encoded", rows=600)
    run("esmm", make_config(batch_size=64), encoded, tmp_path / "model")
    session = ort.InferenceSession(str(tmp_path / "model" / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [(node.name, node.shape[1]) for node in session.get_inputs()] == [("ids", 7), ("weights", 6)]
    scorer = Scorer(tmp_path / "model")
    columns = impressions(600, 2)[0]
    whole = scorer.score(columns)
    for rows in (slice(0, 1), slice(0, 7), slice(0, 0)):
        part = scorer.score({name: column[rows] for name, column in columns.items()})
        assert part.pctcvr == pytest.approx(whole.pctcvr[rows], abs=1e-6)


def test_weights_that_do_not_fit_the_encoder_are_refused(tmp_path: Path, make_config: Any) -> None:
    encoded = write_encoded(tmp_path / "encoded", rows=100)
    rows = load(encoded, "train", Encoder.load(encoded), CPU)
    assert rows.ids.dtype == torch.int32, "ids are most of the memory"
    assert rows.weights.shape == (100, 6)
    ranges = read_manifest(encoded)["ranges"]
    path = encoded / "train" / "weights.npy"
    np.save(path, np.load(path)[:, :-1])
    write_manifest(encoded, ranges=ranges)
    with pytest.raises(DataError, match=r"train: weights\.npy does not fit"):
        run("esmm", make_config(), encoded, tmp_path / "model")
    path.unlink()
    write_manifest(encoded, ranges=ranges)
    with pytest.raises(DataError, match=r"weights\.npy does not exist: run the encode stage again"):
        run("esmm", make_config(), encoded, tmp_path / "model")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_pools_as_a_cpu_does_and_waits_for_nothing() -> None:
    net, rows = network(), batch()
    wanted = net(*rows.inputs)
    on_gpu, inputs = net.cuda(), [tensor.cuda() for tensor in rows.inputs]
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = on_gpu(*inputs)
        (found[0].sum() + found[1].sum()).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for mine, other in zip(found, wanted, strict=True):
        assert torch.allclose(mine.cpu(), other, atol=1e-5)
