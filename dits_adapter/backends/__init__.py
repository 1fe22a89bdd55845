"""Backends: what computes behind DITSQueryEncoder, PyTorch or ONNX Runtime."""
