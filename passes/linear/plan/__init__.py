"""What a region costs, and the plan that costs the least."""
