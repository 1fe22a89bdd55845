"""Qdrant Edge: the engine of a server in this process, for a folder."""
