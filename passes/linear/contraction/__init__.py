"""Products with batches of matrices."""
