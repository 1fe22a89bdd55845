"""Joint training: CLIP, X-Pool head and alignment network learn together from video files."""
