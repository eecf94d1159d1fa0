"""KFP shells of the features room. No `from __future__ import annotations` here: KFP reads the annotations."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.contracts.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def retrieve(config: str, clean: Input[Dataset], features: Input[Dataset], dataset: Output[Dataset]) -> None:
    """Joins each impression with the features known when it was shown."""
    from pathlib import Path

    from components.contracts.record import stage
    from components.features.retrieve import RetrieveConfig, run

    with stage("retrieve") as facts:
        facts.update(run(RetrieveConfig.parse(config), Path(clean.path), Path(features.path), Path(dataset.path)))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def encode(config: str, dataset: Input[Dataset], encoded: Output[Dataset]) -> None:
    """Fits the encoder on the training split and encodes train and validation, once for all candidates."""
    from pathlib import Path

    from components.contracts.record import stage
    from components.features.encode import EncodeConfig, run

    with stage("encode") as facts:
        facts.update(run(EncodeConfig.parse(config), Path(dataset.path), Path(encoded.path)))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def materialize(config: str, features: Input[Dataset], dataset: Input[Dataset], expected: Output[Dataset]) -> None:
    """Brings the online store up to as-of and writes what the service must now see."""
    from pathlib import Path

    from components.contracts.record import stage
    from components.features.materialize import MaterializeConfig, run

    with stage("materialize") as facts:
        facts.update(run(MaterializeConfig.parse(config), Path(features.path), Path(dataset.path), Path(expected.path)))
