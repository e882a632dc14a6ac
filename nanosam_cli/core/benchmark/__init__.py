"""How long it takes, side by side."""
