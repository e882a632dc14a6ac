"""What the labelling page does besides: frames of videos, carrying on, import and export."""
