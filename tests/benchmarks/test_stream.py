"""What the benchmark trains on is an encoded artifact, and a turn of it measures what it says."""

import torch

from benchmarks import stream
from components.contracts.files import read_manifest
from components.scoring.encoder import Encoder
from components.training.data import load


def test_the_artifact_is_one_and_a_turn_streams_it(tmp_path):
    stream.write_artifact(tmp_path / "encoded", 6000)
    read_manifest(tmp_path / "encoded")
    encoder = Encoder.load(tmp_path / "encoded")
    rows = {split: load(tmp_path / "encoded", split, encoder, torch.device("cpu")) for split in ("train", "valid")}
    assert {split: len(part) for split, part in rows.items()} == {"train": 6000, "valid": 600}
    assert rows["train"].ids.shape == (6000, stream.FIELDS)
    assert 0.05 < rows["train"].click.mean() < 0.2
    assert (rows["train"].conversion <= rows["train"].click).all()
    # _in_a_process ends with an error unless the rows were streamed.
    found = stream._in_a_process("streamed", tmp_path / "encoded", tmp_path / "model")
    assert found["seconds"] > 0
    assert found["cpu_s"] > 0
    assert found["rows_per_s"] > 0
    assert 100 < found["peak_mb"] < 5000
