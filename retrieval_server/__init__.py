"""A face: clip-retrieval's REST protocol, and the batch route, over FAISS indices."""
