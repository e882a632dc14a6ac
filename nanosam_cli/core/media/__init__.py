"""Photos, videos and masks as files, and pictures of results."""
