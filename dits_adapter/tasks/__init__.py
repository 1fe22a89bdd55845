"""Tasks over adapters, pairs and queries that take several parts of the package: what commands do, in one call."""
