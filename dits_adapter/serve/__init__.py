"""The search page: plain CLIP and an adapter side by side, over HTTP."""

__all__: list[str] = []
