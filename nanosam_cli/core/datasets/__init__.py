"""Annotated photos and clips, as they lie on disk."""
