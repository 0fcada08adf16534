"""Training of the three networks: data, synthetic lesions, losses, fit, evaluate."""
