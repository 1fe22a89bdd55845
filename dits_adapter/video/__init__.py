"""Video files to frames, and frames to vectors."""
