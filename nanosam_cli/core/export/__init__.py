"""From a checkpoint to ONNX files, each proved."""
