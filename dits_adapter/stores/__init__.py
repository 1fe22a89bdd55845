"""Vector stores: where the vectors of a video library are kept and searched."""
