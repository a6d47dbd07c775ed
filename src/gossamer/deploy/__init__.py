"""How does a network leave the laboratory? As artifacts: a sparse file, C source, ONNX; checked and timed."""
