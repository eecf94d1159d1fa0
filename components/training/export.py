"""A trained network to files: safetensors weights and an ONNX graph that is checked against eager.

Both are a function of the weights alone: no paths, no times, so equal trainings make equal files.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from components.training.calibration import Calibrated
from components.training.data import Rows, Split
from components.training.fit import chunks, predict
from components.training.model import FunnelNetwork

TOLERANCE = 1e-5
"""Largest difference of a probability between eager and ONNX that is float32 rounding and no other graph."""
OPSET = 18


class Probabilities(nn.Module):
    """What is exported: ids int64 [B, I], dense float32 [B, 2D], weights float32 [B, W] -> pctr, pcvr, float32 [B].

    pcvr is the calibrated one, and pctr * pcvr the pCTCVR that is served.
    """

    def __init__(self, network: Calibrated) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: Tensor, dense: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        logit_ctr, logit_cvr = self.network(ids, dense, weights)
        return torch.sigmoid(logit_ctr), torch.sigmoid(logit_cvr)


def save_weights(network: FunnelNetwork, path: Path) -> None:
    """Every weight of the network itself once; of a shared table only the CTR tower's name is written."""
    save_file({name: p.detach().cpu().contiguous() for name, p in network.named_parameters()}, path)
    # safetensors writes for the owner alone; an image runs as somebody else.
    path.chmod(0o644)


INPUTS = ("ids", "dense", "weights")


def save_onnx(network: Calibrated, path: Path, rows: Rows) -> None:
    """Writes the graph, calibration included, with a dynamic batch.

    An input of no columns, or one no layer reads, is not in it.

    The network has to be on the CPU. Of `rows` only the columns matter.
    """
    # Two rows: the exporter takes a size of 1 for a constant.
    shapes = [(2, tensor.shape[1]) for tensor in rows.inputs]
    example = (torch.zeros(shapes[0], dtype=torch.long), torch.zeros(shapes[1]), torch.zeros(shapes[2]))
    batch = torch.export.Dim("batch", min=1)
    with _quiet():
        program = torch.onnx.export(
            Probabilities(network).eval(),
            example,
            input_names=list(INPUTS),
            output_names=["pctr", "pcvr"],
            dynamic_shapes=({0: batch}, {0: batch}, {0: batch}),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    _strip(proto)
    _drop_unread_inputs(proto)
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def onnx_difference(network: Calibrated, path: Path, rows: Split) -> float:
    """Largest absolute difference of pctr or calibrated pcvr between eager mode and the graph; NaN if one is.

    Network and rows have to be on the CPU.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = [node.name for node in session.get_inputs()]
    worst = 0.0
    for part in chunks(rows):
        feed = {"ids": part.ids.long().numpy(), "dense": part.dense.numpy(), "weights": part.weights.numpy()}
        found = session.run(["pctr", "pcvr"], {name: feed[name] for name in wanted})
        for logit, other in zip(predict(network, part), found, strict=True):
            worst = float(np.maximum(worst, np.abs(torch.sigmoid(logit).numpy() - other).max()))
    return worst


def _strip(proto: onnx.ModelProto) -> None:
    """Removes what depends on where the exporter ran: stack traces, paths, documentation."""
    del proto.metadata_props[:]
    proto.doc_string = ""
    proto.graph.doc_string = ""
    del proto.graph.metadata_props[:]
    values = [*proto.graph.value_info, *proto.graph.input, *proto.graph.output]
    for item in [*proto.graph.node, *proto.graph.initializer, *values]:
        item.doc_string = ""
        del item.metadata_props[:]


def _drop_unread_inputs(proto: onnx.ModelProto) -> None:
    read = {name for node in proto.graph.node for name in node.input}
    kept = [value for value in proto.graph.input if value.name in read]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints progress to stdout, and warns of what is in its own code."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
