"""Data of the offline default: a seeded generator of video clips with captions, and a small CLIP for them."""
