"""Artifacts: trained adapters on disk, with all that has to be known to use them rightly."""
