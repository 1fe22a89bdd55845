"""Vector stores: collections of video vectors, written and searched."""
