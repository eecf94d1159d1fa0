"""A model artifact made by hand in milliseconds: one random weight a known value, summed, through a sigmoid."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from components.contracts.artifacts import METRICS_JSON, MODEL_JSON, ONNX, WEIGHTS, ModelInfo, Ranges
from components.contracts.files import facts_of, read_manifest, write_json, write_manifest, write_text
from components.contracts.spec import Feature, FeatureSpec
from components.scoring.encoder import Encoder

AS_OF = "2026-01-10T00:00:00Z"
USERS = [f"u{n}" for n in range(20)]
ITEMS = [f"i{n}" for n in range(30)]
CONTEXT_SPEC = FeatureSpec(
    features=(
        Feature(name="user_id", source="id", dtype="string", encoding="id", min_count=1),
        Feature(name="item_id", source="id", dtype="string", encoding="id", min_count=1),
        Feature(name="position", source="context", dtype="int", encoding="id", tower="ctr", min_count=1),
        Feature(name="hour", source="context", dtype="int", encoding="id", min_count=1),
        Feature(name="device", source="context", dtype="string", encoding="id", min_count=1),
        Feature(name="speed", source="context", dtype="float", encoding="bucket", buckets=4),
        Feature(name="member", source="context", dtype="bool", encoding="id", min_count=1),
    ),
    reference_position=1,
)


def rows(seed: int = 0, count: int = 600) -> dict[str, np.ndarray]:
    """Raw columns of CONTEXT_SPEC, covering every user and item."""
    rng = np.random.default_rng(seed)
    return {
        "user_id": np.array([USERS[n % len(USERS)] for n in range(count)], object),
        "item_id": np.array([ITEMS[n % len(ITEMS)] for n in range(count)], object),
        "position": rng.integers(1, 11, count),
        "hour": rng.integers(0, 24, count),
        "device": rng.choice(np.array(["ios", "android"], object), count),
        "speed": rng.uniform(0, 100, count),
        "member": rng.choice(np.array([True, False], object), count),
    }


def make_model(
    folder: Path,
    columns: dict[str, np.ndarray] | None = None,
    spec: FeatureSpec = CONTEXT_SPEC,
    seed: int = 0,
    dataset: str = "shop",
    as_of: str = AS_OF,
) -> Path:
    """Writes a sealed model artifact of the given spec, whose weights depend on `seed`."""
    folder.mkdir(parents=True)
    encoder = Encoder.fit(spec, rows() if columns is None else columns)
    encoder.save(folder)
    rng = np.random.default_rng(seed)
    tables = {head: [rng.normal(0, 0.7, size).astype(np.float32) for size in encoder.sizes] for head in ("ctr", "cvr")}
    onnx.save(_graph(spec, tables), folder / ONNX)
    save_file({f"{head}.{n}": t for head, all_ in tables.items() for n, t in enumerate(all_)}, folder / WEIGHTS)
    info = ModelInfo(
        candidate="esmm",
        architecture={"kind": "tiny", "seed": seed},
        spec=spec,
        ranges=Ranges(kind="hash", train=("0", "0.6"), valid=("0.6", "0.75"), test=("0.75", "1")),
        dataset=dataset,
        as_of=as_of,
        data_fingerprint="0",
        code="",
        seed=seed,
    )
    write_text(folder / MODEL_JSON, info.to_json())
    write_json(folder / METRICS_JSON, {"eligible": True})
    write_manifest(folder)
    return folder


def reseal(folder: Path) -> None:
    """Seals a folder again after a test changed a file in it, as a packaging bug would."""
    write_manifest(folder, **facts_of(read_manifest(folder, verify=False)))


def _graph(spec: FeatureSpec, tables: dict[str, list[np.ndarray]]) -> onnx.ModelProto:
    nodes, constants = [], []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    for head, bias in (("ctr", -1.5), ("cvr", -2.0)):
        total = constant(f"{head}_bias", np.array(bias, np.float32))
        for index, feature in enumerate(spec.features):
            if head == "cvr" and feature.tower == "ctr":
                continue
            name = f"{head}_{index}"
            nodes.append(
                helper.make_node("Gather", ["ids", constant(f"{name}_n", np.array(index))], [f"{name}_i"], axis=1)
            )
            nodes.append(
                helper.make_node("Gather", [constant(f"{name}_t", tables[head][index]), f"{name}_i"], [f"{name}_w"])
            )
            nodes.append(helper.make_node("Add", [total, f"{name}_w"], [f"{name}_sum"]))
            total = f"{name}_sum"
        nodes.append(helper.make_node("Sigmoid", [total], [f"p{head}"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["B", len(spec.features)])],
        [helper.make_tensor_value_info(f"p{head}", TensorProto.FLOAT, ["B"]) for head in tables],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
