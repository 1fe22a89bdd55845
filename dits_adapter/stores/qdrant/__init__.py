"""Qdrant: a server, a folder (Qdrant Edge) or memory."""
