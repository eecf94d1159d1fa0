"""The scorer on a model whose graph was written by hand: pctr = sigmoid(sum of ids), pcvr = 0.5."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from components.contracts.artifacts import ModelInfo, Ranges
from components.contracts.errors import CorruptArtifact, DataError
from components.contracts.files import write_manifest, write_text
from components.contracts.spec import Feature, FeatureSpec
from components.scoring.encoder import Encoder
from components.scoring.score import Scorer

SPEC = FeatureSpec(
    features=(
        Feature(name="hour", source="context", dtype="int", encoding="id", min_count=1),
        Feature(name="position", source="context", dtype="int", encoding="id", tower="ctr", min_count=1),
    ),
    reference_position=2,
)
COLUMNS = {"hour": np.array([7, 8, 7]), "position": np.array([1, 1, 3])}


def graph() -> bytes:
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("Cast", ["ids"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["x", "axes"], ["sum"], keepdims=0),
        helper.make_node("Sigmoid", ["sum"], ["pctr"]),
        helper.make_node("Sub", ["sum", "sum"], ["zero"]),
        helper.make_node("Sigmoid", ["zero"], ["pcvr"]),
    ]
    value = helper.make_tensor_value_info
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "by_hand",
            [value("ids", TensorProto.INT64, ["batch", 2])],
            [value("pctr", TensorProto.FLOAT, ["batch"]), value("pcvr", TensorProto.FLOAT, ["batch"])],
            [axes],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    info = ModelInfo(
        candidate="esmm",
        architecture={},
        spec=SPEC,
        ranges=Ranges(kind="hash", train=("0", "0.7"), valid=("0.7", "0.8"), test=("0.8", "1")),
        dataset="d",
        as_of="2026-01-01T00:00:00Z",
        data_fingerprint="",
        code="",
        seed=0,
    )
    write_text(tmp_path / "model.json", info.to_json())
    Encoder.fit(SPEC, {"hour": np.array([7] * 4 + [8] * 2), "position": np.array([1, 1, 1, 2, 2, 3])}).save(tmp_path)
    (tmp_path / "model.onnx").write_bytes(graph())
    write_manifest(tmp_path)
    return tmp_path


def sigmoid(x: list[float]) -> np.ndarray:
    return 1 / (1 + np.exp(-np.array(x)))


def test_logged_position_reads_the_column_and_reference_position_does_not(folder: Path) -> None:
    scorer = Scorer(folder)
    # hour 7 is 2, 8 is 3; position 1 is 2, 2 is 3, 3 is 4.
    logged = scorer.score(COLUMNS, "logged")
    assert logged.pctr == pytest.approx(sigmoid([4, 5, 6]))
    reference = scorer.score({"hour": COLUMNS["hour"]})
    assert reference.pctr == pytest.approx(sigmoid([5, 6, 5]))
    assert (scorer.score(COLUMNS).pctr == reference.pctr).all()
    assert reference.pctr.dtype == reference.pcvr.dtype == np.float64


def test_pctcvr_is_exactly_the_product(folder: Path) -> None:
    scores = Scorer(folder).score(COLUMNS)
    assert (scores.pctcvr == scores.pctr * scores.pcvr).all()


def test_no_rows_score_to_no_rows(folder: Path) -> None:
    assert Scorer(folder).score({"hour": np.array([], np.int64)}).pctcvr.shape == (0,)


def test_missing_columns_are_named(folder: Path) -> None:
    with pytest.raises(DataError, match="no column hour"):
        Scorer(folder).score({"position": COLUMNS["position"]})
    with pytest.raises(DataError, match="no column position"):
        Scorer(folder).score({"hour": COLUMNS["hour"]}, "logged")


@pytest.mark.parametrize("name", ["model.json", "encoder.json", "encoder.npz", "model.onnx"])
def test_a_flipped_byte_in_any_file_is_noticed(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(CorruptArtifact, match=name):
        Scorer(folder)


def test_an_encoder_of_another_spec_and_a_model_without_a_graph_are_refused(folder: Path) -> None:
    other = FeatureSpec(features=SPEC.features[:1])
    Encoder.fit(other, COLUMNS).save(folder)
    write_manifest(folder)
    with pytest.raises(CorruptArtifact, match="another feature spec"):
        Scorer(folder)
    Encoder.fit(SPEC, COLUMNS).save(folder)
    (folder / "model.onnx").unlink()
    write_manifest(folder)
    with pytest.raises(DataError, match="not eligible"):
        Scorer(folder)


def test_a_folder_without_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        Scorer(tmp_path)
