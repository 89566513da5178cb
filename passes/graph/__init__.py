"""A graph without algebra: nodes and their arguments, sizes, effects, weights, and how nodes are emitted."""
