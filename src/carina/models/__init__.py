"""The three networks and the bundle format."""
