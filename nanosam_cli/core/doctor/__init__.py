"""What of this machine and its files works."""
