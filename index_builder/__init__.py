"""A workshop: CLIP, k-means, scorer heads, FAISS, bulk queries."""
