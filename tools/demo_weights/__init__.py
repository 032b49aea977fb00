"""How the demo weights are trained and measured; not part of the installed package."""
