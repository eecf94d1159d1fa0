"""Training: ESMM and its rivals over one network definition, one optimizer, one pass."""
