"""FAISS indexes: planned, built, reported on, opened; autofaiss in an environment of its own."""
