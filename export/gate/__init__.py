"""The comparison of an artefact with its reference, which decides whether it is written."""
