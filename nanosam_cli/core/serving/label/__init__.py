"""The labelling page: its routes, the annotation file, frames of videos, carrying on, import and export."""
