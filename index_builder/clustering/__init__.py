"""Spherical k-means, and words for what a cluster shows."""
