"""Training of the three networks: settings, examples, losses, fit, checkpoints, publishing. Torch lives here."""
