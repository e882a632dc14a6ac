"""Which files a name means here, opened once."""
