"""From nodes of a graph to the affine algebra."""
