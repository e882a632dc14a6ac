"""Files, the cache, journals, and what machine this is."""
