"""Bags when a model is judged: their lists and weights are read from the split, and the card says how they enter."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_model import BAGS_SPEC, make_model, rows

from components.contracts.artifacts import Ranges, read_model
from components.contracts.artifacts import Rows as Counts
from components.contracts.decision import Candidate, Decision, Evaluation
from components.contracts.errors import DataError
from components.evaluation.model_card import model_card
from components.evaluation.scored import load_split, score_split
from components.scoring.raw import Ragged
from components.scoring.score import Scorer


def write_test_split(dataset: Path, leave_out: str = "") -> Path:
    """Two shards of 150 rows each."""
    columns = {name: column for name, column in rows(seed=3, count=300, bags=True).items() if name != leave_out}
    arrays = {
        name: pa.ListArray.from_arrays(pa.array(column.offsets, pa.int32()), pa.array(column.values))
        if isinstance(column, Ragged)
        else pa.array(column)
        for name, column in columns.items()
    }
    no = pa.array(np.arange(300) % 3 == 0)
    ids = pa.array([f"i{n}" for n in range(300)])
    table = pa.table({**arrays, "impression_id": ids, "click": no, "conversion": no})
    (dataset / "test").mkdir(parents=True)
    for n in range(2):
        pq.write_table(table[n * 150 : (n + 1) * 150], dataset / "test" / f"part-{n}.parquet")
    return dataset


def test_a_model_with_bags_scores_a_split_as_it_scores_the_rows(tmp_path: Path) -> None:
    scorer = Scorer(make_model(tmp_path / "model", bags=True))
    split = load_split(write_test_split(tmp_path / "dataset"), "test")
    found = score_split(scorer, split, ["reference", "logged"], chunk_rows=40)
    columns = rows(seed=3, count=300, bags=True)
    for position in ("reference", "logged"):
        wanted = scorer.score(columns, position)
        assert found[position].pctr == pytest.approx(wanted.pctr, abs=1e-7)
        assert found[position].pctcvr == pytest.approx(wanted.pctcvr, abs=1e-7)


def test_a_split_without_the_weights_of_a_bag_is_refused_by_their_name(tmp_path: Path) -> None:
    scorer = Scorer(make_model(tmp_path / "model", bags=True))
    split = load_split(write_test_split(tmp_path / "dataset", leave_out="tags_weights"), "test")
    with pytest.raises(DataError, match="no column tags_weights"):
        score_split(scorer, split, ["reference"])


def test_the_card_says_how_a_bag_is_pooled(tmp_path: Path) -> None:
    info = read_model(make_model(tmp_path / "model", bags=True))
    everything = ("0", "1")
    evaluation = Evaluation(
        decision=Decision(promote=False, winner="esmm", champion_version=None, reasons=(), gates=()),
        candidates=(Candidate(name="esmm", eligible=True),),
        rows=Counts(),
        ranges=Ranges(kind="hash", train=everything, valid=everything, test=everything),
        as_of=info.as_of,
        dataset=info.dataset,
    )
    assert info.spec == BAGS_SPEC
    card = model_card(evaluation, info)
    assert "`tags` (strings from item_context, bag: weighted mean of at most 4 values, the heaviest)" in card
    assert "`shown_with` (strings from context, bag: sum of at most 3 values, the first)" in card
    limited = BAGS_SPEC.features[-1].model_copy(update={"max_values": 9})
    spec = BAGS_SPEC.model_copy(update={"features": (*BAGS_SPEC.features[:-1], limited)})
    fitted = read_model(make_model(tmp_path / "wider", rows(bags=True), spec))
    assert "of at most 6 values, the heaviest" in model_card(evaluation, fitted), "the width, not the declared limit"
