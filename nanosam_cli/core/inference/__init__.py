"""Two sessions and a predictor: from a photo and prompts to masks."""
