"""Training: cached (text, video) vectors in, artefact out."""
