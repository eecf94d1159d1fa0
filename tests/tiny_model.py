"""A model artifact made by hand in milliseconds: one random weight a known value, summed, through a sigmoid.

Of a bag, the coefficients times the weights of its values are summed.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from components.contracts.artifacts import METRICS_JSON, MODEL_JSON, ONNX, WEIGHTS, ModelInfo, Ranges
from components.contracts.files import facts_of, read_manifest, write_json, write_manifest, write_text
from components.contracts.spec import Feature, FeatureSpec
from components.scoring.encoder import Encoder
from components.scoring.raw import Column, Ragged

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
BAGS_SPEC = CONTEXT_SPEC.model_copy(
    update={
        "features": (
            *CONTEXT_SPEC.features[:3],
            Feature(
                name="shown_with", source="context", dtype="strings", encoding="bag", combiner="sum",
                min_count=1, max_values=3,
            ),
            *CONTEXT_SPEC.features[3:],
            Feature(
                name="tags", source="item_context", dtype="strings", encoding="bag", weighted=True, min_count=1,
                max_values=4,
            ),
        )
    }
)  # fmt: skip
"""CONTEXT_SPEC and two bags: `shown_with` of the request, its values summed, and the weighted `tags` of each item."""


def rows(seed: int = 0, count: int = 600, bags: bool = False) -> dict[str, Column]:
    """Raw columns of CONTEXT_SPEC (of BAGS_SPEC if `bags`), covering every user and item."""
    rng = np.random.default_rng(seed)
    plain: dict[str, Column] = {
        "user_id": np.array([USERS[n % len(USERS)] for n in range(count)], object),
        "item_id": np.array([ITEMS[n % len(ITEMS)] for n in range(count)], object),
        "position": rng.integers(1, 11, count),
        "hour": rng.integers(0, 24, count),
        "device": rng.choice(np.array(["ios", "android"], object), count),
        "speed": rng.uniform(0, 100, count),
        "member": rng.choice(np.array([True, False], object), count),
    }
    if not bags:
        return plain
    tags = _ragged(rng, count, 6)
    weights = Ragged(rng.uniform(0, 2, len(tags.values)), tags.offsets)
    return {**plain, "shown_with": _ragged(rng, count, 4), "tags": tags, "tags_weights": weights}


def _ragged(rng: np.random.Generator, count: int, longest: int) -> Ragged:
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, longest + 1, count))]).astype(np.int64)
    return Ragged(rng.choice(np.array([f"t{n}" for n in range(12)], object), offsets[-1]), offsets)


def make_model(
    folder: Path,
    columns: Mapping[str, Column] | None = None,
    spec: FeatureSpec | None = None,
    seed: int = 0,
    dataset: str = "shop",
    as_of: str = AS_OF,
    bags: bool = False,
) -> Path:
    """Writes a sealed model artifact of the given spec, whose weights depend on `seed`.

    Without a spec it is CONTEXT_SPEC, or BAGS_SPEC if `bags`; without columns it learns from `rows(bags=bags)`.
    """
    folder.mkdir(parents=True)
    if spec is None:
        spec = BAGS_SPEC if bags else CONTEXT_SPEC
    encoder = Encoder.fit(spec, rows(bags=bags) if columns is None else columns)
    encoder.save(folder)
    rng = np.random.default_rng(seed)
    tables = {head: [rng.normal(0, 0.7, size).astype(np.float32) for size in encoder.sizes] for head in ("ctr", "cvr")}
    onnx.save(_graph(encoder, tables), folder / ONNX)
    save_file({f"{head}.{n}": t for head, all_ in tables.items() for n, t in enumerate(all_)}, folder / WEIGHTS)
    info = ModelInfo(
        candidate="esmm",
        architecture={"kind": "tiny", "seed": seed, "widths": list(encoder.widths)},
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


def _graph(encoder: Encoder, tables: dict[str, list[np.ndarray]]) -> onnx.ModelProto:
    nodes, constants = [], []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: int) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    for head, bias in (("ctr", -1.5), ("cvr", -2.0)):
        total = constant(f"{head}_bias", np.array(bias, np.float32))
        at = at_weights = 0
        for index, (feature, width) in enumerate(zip(encoder.spec.features, encoder.widths, strict=True)):
            # A bag has a column of weights for each of ids; a sum of one column is the column itself.
            is_bag, name = feature.encoding == "bag", f"{head}_{index}"
            places = [constant(f"{name}_{n}", np.arange(a, a + width)) for n, a in (("n", at), ("m", at_weights))]
            at, at_weights = at + width, at_weights + (width if is_bag else 0)
            if head == "cvr" and feature.tower == "ctr":
                continue
            rows = node("Gather", ["ids", places[0]], f"{name}_i", axis=1)
            values = node("Gather", [constant(f"{name}_t", tables[head][index]), rows], f"{name}_w")
            if is_bag:
                values = node("Mul", [values, node("Gather", ["weights", places[1]], f"{name}_c", axis=1)], f"{name}_p")
            axes = constant(f"{name}_axes", np.array([1]))
            total = node("Add", [total, node("ReduceSum", [values, axes], f"{name}_r", keepdims=0)], f"{name}_sum")
        node("Sigmoid", [total], f"p{head}")
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["B", encoder.ids_columns])]
    if encoder.weights_columns:
        inputs.append(helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["B", encoder.weights_columns]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs,
        [helper.make_tensor_value_info(f"p{head}", TensorProto.FLOAT, ["B"]) for head in tables],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
