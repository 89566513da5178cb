"""From plans to nodes."""
