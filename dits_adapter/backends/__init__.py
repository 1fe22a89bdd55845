"""Backends: the computation behind `DITSQueryEncoder`, on PyTorch or ONNX Runtime."""
