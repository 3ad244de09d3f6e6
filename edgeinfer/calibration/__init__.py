"""Calibration: what a model's matrices see of a text, and how many bits each of them deserves."""
