"""The tile plan, runtimes, and from bundle to predictor."""
