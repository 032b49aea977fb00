"""The backends that run models. Each is imported when it is opened; none falls back to another."""
