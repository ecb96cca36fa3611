"""A face: the curator's pages over a run folder and a server."""
