"""What a student learns from: teachers and their embeddings."""
