"""Data: (text, video) pairs, and caches of their vectors."""
