"""The online store: what is copied, compared, written and noted when it is brought up to an as-of (docs/adr/0006)."""
