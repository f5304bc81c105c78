"""Windowed and exact softmax attention, and all that it is made of."""
