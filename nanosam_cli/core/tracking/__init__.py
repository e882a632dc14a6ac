"""Objects followed through video: the tracker and what it is run on."""
