"""The backend for models that a Triton server serves."""

THREADS = "ifrnet-deploy.threads"
"""Parameter in a model's configuration: the number of CPUs of one instance in the Python backend. A
model.py that an earlier version copied into a repository imports this name."""
