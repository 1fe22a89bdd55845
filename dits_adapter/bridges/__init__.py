"""DITS inside the tools that its users already have."""
