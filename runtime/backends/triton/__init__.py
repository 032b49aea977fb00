"""Models that a Triton server serves."""

THREADS = "ifrnet-deploy.threads"
"""A parameter of a configuration: processors of one instance in the Python backend. A model.py that
an earlier version copied into a repository imports it from here."""
