"""Measurements: latency with its evidence, and what it is compared with."""
