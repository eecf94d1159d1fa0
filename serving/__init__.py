"""The BentoML service. Importing it silences the libraries' telemetry, before any of them is loaded."""

from components.contracts import lean
from components.contracts.quiet import silence

silence()
lean.install()
