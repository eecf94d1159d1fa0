"""Reads the online store in Feast's own layout, straight into the columns that scoring takes."""
