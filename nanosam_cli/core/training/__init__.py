"""Training: recipes, data, teachers, and the loop that makes models of them."""
