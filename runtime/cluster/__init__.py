"""Interpolates many videos, divided into segments, on the machines of a Ray cluster."""
