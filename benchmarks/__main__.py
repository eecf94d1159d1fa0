"""`python -m benchmarks [WHICH] [--json]`: what `make bench` and `esmm bench` run."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks import data, debias, features, lookup, materialize, models, push, scale, stream, train

BENCHMARKS: dict[str, Callable[[bool], None]] = {
    "data": data.main,
    "features": features.main,
    "lookup": lookup.main,
    "materialize": materialize.main,
    "models": models.main,
    "debias": debias.main,
    "push": push.main,
    "scale": scale.main,
    "stream": stream.main,
    "train": train.main,
}

parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure, as ratios in one run.")
parser.add_argument("which", nargs="?", choices=BENCHMARKS, help="default: all")
parser.add_argument("--json", action="store_true", help="one JSON object a benchmark instead of tables")
arguments = parser.parse_args()
for name in [arguments.which] if arguments.which else BENCHMARKS:
    BENCHMARKS[name](arguments.json)
