"""Converters: from checkpoints and GGUF files to formats that edgeinfer runs."""
