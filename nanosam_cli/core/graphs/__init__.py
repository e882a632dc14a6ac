"""ONNX graphs: reading, rewriting, and conversion to half precision."""
