"""Masks for more photos than one process should do: sources, shards, and Ray Data between them."""
