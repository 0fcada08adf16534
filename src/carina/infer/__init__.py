"""Runtimes, the plan of windows, and from a bundle to a mask or probabilities."""
