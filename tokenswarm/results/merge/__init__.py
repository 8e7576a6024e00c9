"""All that a run left, or that others left of it, on one timeline."""
