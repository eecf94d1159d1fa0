"""KFP shells of the run record: what evaluation made is collected; the exit handler sums the run up."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Model, PipelineTaskFinalStatus

from components.contracts.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def collect(
    evaluation: Input[Dataset],
    report: Input[HTML],
    docs: Input[HTML],
    quarantine: Input[Dataset],
    features: Input[Dataset],
    dataset: Input[Dataset],
    winner: Input[Model],
) -> None:
    """Copies verdict, report and validation docs into the run folder and notes where the rest lies (never cached)."""
    from pathlib import Path

    from components.contracts.paths import run_dir
    from components.contracts.record import stage
    from components.evaluation.record import COLLECT
    from components.evaluation.record import collect as copy_into

    with stage(COLLECT) as facts:
        facts.update(
            copy_into(Path(evaluation.path), Path(report.path), Path(docs.path), Path(quarantine.path), run_dir())
        )
        facts["artifacts"] = {"features": features.path, "dataset": dataset.path, "winner": winner.path}


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finish(status: PipelineTaskFinalStatus) -> None:
    """Exit handler: sums the run up in record.json, whatever happened, and notifies."""
    from components.contracts.paths import run_dir
    from components.evaluation.record import finish as write_record

    folder = run_dir()
    if folder is not None:
        write_record(folder, status.state)
