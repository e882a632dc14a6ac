"""Torch modules, only for training and export."""
