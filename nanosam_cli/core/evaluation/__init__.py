"""Models against annotations: prompts, loop, results and statistics."""
