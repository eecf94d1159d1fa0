"""Every candidate trained on one data set with one seed, and what its predictions on the test split are worth.

The data go through the pipeline's own stages (ingest, retrieve, encode); each candidate trains as in a run, but for the
calibration that a run fits on top: what is compared here is what the losses learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from components.contracts import columns as c
from components.contracts import dataset as ds
from components.contracts.times import parse_utc
from components.evaluation.metrics import Array, Outcome, auc, calibration, entire_space
from components.evaluation.scored import load_split
from components.evaluation.truth import Truth, load_truth
from components.features.encode import EncodeConfig
from components.features.encode import run as encode
from components.features.retrieve import RetrieveConfig
from components.features.retrieve import run as retrieve
from components.ingestion.ingest import IngestConfig
from components.ingestion.ingest import run as ingest
from components.scoring.encoder import Encoder
from components.scoring.raw import columns_from_table
from components.training.config import TrainingConfig
from components.training.data import Rates, Rows, load
from components.training.fit import fit
from components.training.model import FunnelNetwork
from components.training.train import build
from pipelines.feature_spec import feature_spec
from pipelines.request import request_of

DIMENSION, HIDDEN = 18, (200, 80)
"""The network of Ma et al., SIGIR 2018, section 3.1; everything else as the data set's recipe says."""
CTR_NET = "base"
"""The candidate whose CTR tower stands for the paper's separate CTR network: it shares nothing with its CVR tower."""

Measured = dict[str, dict[str, float]]
"""Model -> metric -> value."""


@dataclass(frozen=True)
class Prepared:
    """A data set, encoded: what candidates train on and are judged by. `truth` is None where the data have none."""

    encoder: Encoder
    train: Rows
    valid: Rows
    test: Rows
    outcome: Outcome
    truth: Truth | None
    training: TrainingConfig


@dataclass(frozen=True)
class Predictions:
    """Probabilities of the test rows at the logged position, float64 [B].

    `factor` is what ranks and what pCTR is multiplied by in a ranking: pCVR, but of DIVISION the ratio before it is cut
    at 1 to be a probability, which makes ties.
    """

    pctr: Array
    pcvr: Array
    factor: Array


def prepare(data: Path, work: Path) -> Prepared:
    """The stages up to encoding, and the test split encoded too.

    Raises:
        DataError: if `data` is no dataset or has too little for one of the splits.
    """
    info, recipe, as_of = request_of(data, "", "{}", "")
    spec = feature_spec(info, ds.view_names(data))
    raw, features, dataset, encoded = (work / name for name in ("impressions", "features", "dataset", "encoded"))
    fingerprint = ds.data_fingerprint(data, parse_utc(as_of))
    split = recipe.split or info.split
    ingest(IngestConfig(data=str(data), fingerprint=fingerprint, as_of=as_of, split=split), raw, features)
    retrieve(RetrieveConfig(dataset=info.name, spec=spec), raw, features, dataset)
    encode(EncodeConfig(spec=spec), dataset, encoded)
    encoder, device = Encoder.load(encoded), torch.device("cpu")
    test = load_split(dataset, c.TEST)
    return Prepared(
        encoder=encoder,
        train=load(encoded, c.TRAIN, encoder, device),
        valid=load(encoded, c.VALID, encoder, device),
        test=_encoded(encoder, test.files),
        outcome=test.outcome,
        truth=load_truth(data, ds.truth_fingerprint(data), test),
        training=recipe.training.model_copy(update={"dimension": DIMENSION, "hidden": HIDDEN}),
    )


def _encoded(encoder: Encoder, files: Sequence[Path]) -> Rows:
    names = list(encoder.spec.raw)
    table = pa.concat_tables([pq.read_table(file, columns=[*names, *c.LABELS], partitioning=None) for file in files])
    part = encoder.transform(columns_from_table(table, names))
    labels = (np.asarray(table[name].to_numpy()).astype(np.float32) for name in c.LABELS)
    return Rows(*(torch.from_numpy(np.ascontiguousarray(x)) for x in (part.ids, part.dense, part.weights, *labels)))


def train_all(prepared: Prepared, names: Sequence[str], seed: int) -> dict[str, Predictions]:
    """Each candidate trained from `seed`, and what it predicts of the test rows."""
    training = prepared.training.model_copy(update={"seed": seed})
    found = {}
    torch.set_num_threads(training.threads)
    for name in tqdm(names, desc=f"seed {seed}", disable=None, leave=False):
        shape = training.candidates[name]
        network = build(prepared.encoder, training, shape, Rates.of(prepared.train))
        fit(network, prepared.train, prepared.valid, training, shape, name)
        found[name] = _predict(network, prepared.test)
    return found


@torch.no_grad()
def _predict(network: FunnelNetwork, rows: Rows) -> Predictions:
    parts = []
    for part in rows.chunks():
        outputs = network.outputs(*part.inputs)
        pcvr = torch.sigmoid(network.pcvr_logit(outputs).double())
        factor = network.raw_ratio(outputs).double().exp() if network.shape.cvr_loss == "division" else pcvr
        parts.append([torch.sigmoid(outputs.ctr.double()), pcvr, factor])
    return Predictions(*(torch.cat(column).numpy() for column in zip(*parts, strict=True)))


def measure(found: dict[str, Predictions], prepared: Prepared) -> Measured:
    """Metrics of each model, and of the oracle where the truth is known.

    `cvr_auc`: pCVR over clicked test impressions. `ctcvr_auc`: over all, pCVR times the pCTR of the one CTR network, as
    in the paper; `ctcvr_auc_own`: times the model's own pCTR. `entire_space_*`: pCVR of every impression against the
    truth (components/evaluation/metrics.py). DIVISION is ranked by its raw ratio.
    """
    outcome, truth = prepared.outcome, prepared.truth
    ctr_net = found[CTR_NET].pctr if CTR_NET in found else None
    measured = {name: _one(one, ctr_net, outcome, truth) for name, one in found.items()}
    if truth is not None:
        known = Predictions(truth.click, truth.conversion_click, truth.conversion_click)
        measured["oracle"] = _one(known, truth.click, outcome, None)
        measured["oracle"] |= entire_space(truth.conversion_do_click, truth.conversion_do_click)
    return measured


def _one(model: Predictions, ctr_net: Array | None, outcome: Outcome, truth: Truth | None) -> dict[str, float]:
    click, conversion = outcome.click, outcome.conversion
    values = {
        "cvr_auc": auc(model.factor[click], conversion[click]),
        "ctcvr_auc": auc(ctr_net * model.factor, conversion) if ctr_net is not None else None,
        "ctcvr_auc_own": auc(model.pctr * model.factor, conversion),
        "cvr_ratio_clicked": calibration(model.pcvr[click], conversion[click]),
    }
    if truth is not None:
        values |= entire_space(model.pcvr, truth.conversion_do_click)
    return {key: value for key, value in values.items() if value is not None}
