"""The node's web face: pages and what stands before them."""
