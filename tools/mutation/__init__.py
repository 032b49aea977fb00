"""Makes small changes to the product and counts those that its tests do not notice."""
