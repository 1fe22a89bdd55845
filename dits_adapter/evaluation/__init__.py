"""Evaluation: ranks, metrics, calibration, the modality gap, comparisons and their figures."""
