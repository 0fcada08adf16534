"""Synthetic chests: the phantom, disease and organs drawn into lungs, lung labels by threshold. Knows no torch."""
