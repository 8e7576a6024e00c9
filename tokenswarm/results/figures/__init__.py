"""What a run comes to: each module works out one part of summary.json, or of the evidence for its verdict."""
