"""What runs a model. A backend is imported when it is opened, and never replaced by another."""
