"""Query encoders for other frameworks, a module each; each needs the extra of its name."""

__all__: list[str] = []
