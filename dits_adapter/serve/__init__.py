"""The search page: plain CLIP and an adapter side by side, over HTTP.

A request comes through `_server` (the port) and `_middleware` (token, bodies, headers) to a page of `_pages`, or
to a route of one of the files `_…_routes`, which `_app` puts together. A route asks `_reload` for the `Searcher`
in use, and answers with a model of `_answers`, or of its own file: `_moments`, `_blind`, `_feedback`, `_overview`
and `_hubs`, of which the last two read in a thread (`_background`, `_listing`). `_judging` remembers what may be
judged. `_operations` tells operators what `_health` and `_metrics` know; `_mcp` is an application of its own, for
agents.
"""

__all__: list[str] = []
