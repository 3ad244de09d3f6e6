"""The MLC exporter: a folder of weights, settings and tokenizer that MLC LLM's engines open.

Only numpy is needed to write it. The format was read from MLC LLM's sources
(https://github.com/mlc-ai/mlc-llm) and checked against its own converter, bit by bit.
"""
