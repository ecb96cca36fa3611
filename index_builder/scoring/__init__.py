"""Scores of vectors and pixels: aesthetic, unsafe, watermark and violence heads, LAION's weights among them."""
