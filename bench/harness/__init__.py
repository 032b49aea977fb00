"""How runs are measured: opening, warm-up, interleaved rounds, cold start, roofline."""
