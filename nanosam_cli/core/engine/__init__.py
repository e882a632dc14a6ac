"""Engines: which are built, how, and what is found when they are proved."""
