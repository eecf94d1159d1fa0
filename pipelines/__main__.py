"""`python -m pipelines` is `esmm`."""

from pipelines.cli import main

main()
