"""Loops over tiles and steps, and what orders the work in them."""
