"""What to segment: from the command line, files, and other models."""
