"""Operators of one row at a time: maps, distances and conversions of points."""
