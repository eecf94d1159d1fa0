"""The container image every component names. `esmm compile --image` replaces it in the compiled pipeline."""

IMAGE = "esmm-pipeline:0.1.0-python3.11"
