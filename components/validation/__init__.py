"""The data gate: Great Expectations suites over the ingested tables, quarantine, one page."""
