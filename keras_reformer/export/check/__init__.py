"""Compares what the loaders of an exported model answer to equal requests."""
