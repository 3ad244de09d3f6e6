"""The ONNX exporter: one decoder graph for all families, weights beside it, ready to be run."""
