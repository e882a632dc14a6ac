"""Engines of TensorRT and TensorRT-RTX. One file has CUDA's calls, one the checks, one the session."""
