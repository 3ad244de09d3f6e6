"""Model files: GGUF and safetensors, read by memory map and written atomically."""
