"""Photos to results: the job, the line for one photo, and what is written."""
