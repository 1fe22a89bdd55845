"""Encoders: the two towers of a dual encoder, by family."""
