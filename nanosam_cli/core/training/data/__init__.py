"""Photos and masks to batches of prompts."""
