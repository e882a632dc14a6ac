"""The models that are known, as data, and how their files come here."""
