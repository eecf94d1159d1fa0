"""Trains one candidate: `python -m components.training.job`, under torchrun as several processes (docs/scale-out.md).

torchrun --nproc-per-node 2 -m components.training.job --candidate esmm --config config.json --encoded DIR --model DIR
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from components.contracts.errors import EsmmError
from components.contracts.files import write_json
from components.contracts.quiet import silence
from components.training.config import TrainConfig
from components.training.processes import group
from components.training.train import device_of, run


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="python -m components.training.job",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--candidate", required=True, help="a name in the config's candidates")
    options.add_argument(
        "--config", required=True, type=Path, help="JSON of a TrainConfig, as `plan` hands it to train"
    )
    options.add_argument("--encoded", required=True, type=Path, help="artifact of the encode stage")
    options.add_argument("--model", required=True, type=Path, help="folder to write the model artifact to")
    options.add_argument("--facts", type=Path, help="JSON file to write what the training did to")
    return options


@record
def main() -> None:
    asked = parser().parse_args()
    silence()
    config = TrainConfig.parse(asked.config.read_bytes(), where=str(asked.config))
    with group(device_of(config.training).type) as processes:
        facts = run(asked.candidate, config, asked.encoded, asked.model, processes)
        if asked.facts and processes.is_first:
            write_json(asked.facts, facts)


if __name__ == "__main__":
    try:
        main()
    except EsmmError as error:
        sys.exit(f"training: {error}")
