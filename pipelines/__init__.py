"""The DAGs, each on one screen, and the `esmm` command."""
