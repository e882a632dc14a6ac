"""The engine and model layer. Nothing here knows Typer or Rich."""
