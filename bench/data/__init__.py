"""Data sets: protocols, samples, published results."""
