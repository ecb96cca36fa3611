"""Pools asked for neighbours, here or on a server, and others' centroids."""
