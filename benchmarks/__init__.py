"""Measurements, as ratios in one run against what a user would write instead. `make bench`, never part of the tests."""
