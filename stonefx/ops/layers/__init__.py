"""Operators of whole layers: linear maps with what follows them."""
