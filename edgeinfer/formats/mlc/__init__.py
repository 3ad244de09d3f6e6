"""MLC LLM's model folders: names, ways to store weights, and what a folder says of itself."""
