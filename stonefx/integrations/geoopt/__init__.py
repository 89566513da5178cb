"""geoopt, as it reaches a graph and as it runs on stonefx's operators."""
