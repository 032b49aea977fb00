"""Tables and a page of evidence: python -m bench.report."""
