"""The offline default's data: a seeded generator of video clips with captions, and a small CLIP to read them."""
