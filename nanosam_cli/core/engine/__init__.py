"""Engines: building them, what they say of themselves, and which of them is taken."""
