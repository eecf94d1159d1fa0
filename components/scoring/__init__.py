"""First floor: the encoder and the scoring of raw rows. numpy and onnxruntime only."""
