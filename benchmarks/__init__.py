"""Benchmarks, run from a checkout: datasets, the demo, tables and figures."""
