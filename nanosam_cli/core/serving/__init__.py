"""The HTTP interface and the labelling page: the only room that knows FastAPI, Starlette and uvicorn."""
