"""Operators of every pair: distance matrices and scores of hyperplanes."""
