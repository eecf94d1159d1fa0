"""Parity: features and scores offline against what online serving had at the time."""
