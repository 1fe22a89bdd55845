"""Artifacts: trained adapters on disk, each with its embedding space, training record and checksums."""
