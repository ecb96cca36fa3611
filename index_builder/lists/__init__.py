"""The list-major pass: each inverted list read once and scored for all its centroids."""
