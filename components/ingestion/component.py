"""KFP shell of ingestion: an import and a call."""

from kfp import dsl
from kfp.dsl import Dataset, Output

from components.contracts.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(config: str, impressions: Output[Dataset], features: Output[Dataset]) -> None:
    """Raw logs to attributed, mature, split impressions, and the feature tables known at as-of."""
    from pathlib import Path

    from components.contracts.record import stage
    from components.ingestion.ingest import IngestConfig, run

    with stage("ingest") as facts:
        facts.update(run(IngestConfig.parse(config), Path(impressions.path), Path(features.path)))
