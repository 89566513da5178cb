"""Affine values: elements, regions as trees, what they read, how they compose."""
