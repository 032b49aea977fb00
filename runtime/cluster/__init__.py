"""Many videos, and long ones in parts, on the machines of a Ray cluster."""
