"""The BentoML service. Importing it silences the libraries' telemetry, before any of them is loaded."""

from components.contracts.quiet import silence

silence()
