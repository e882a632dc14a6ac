"""Objects followed through video: the tracker, what it is run on, and how it is scored."""
