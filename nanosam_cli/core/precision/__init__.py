"""Is a model in another precision still the same model? Only these and `engine` import Polygraphy."""
