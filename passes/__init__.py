"""Graph to graph: every rewrite that stonefx knows. Imports torch and itself only."""
