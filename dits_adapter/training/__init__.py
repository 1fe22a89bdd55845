"""Training: cached (text, video) vectors in, artifact out."""
