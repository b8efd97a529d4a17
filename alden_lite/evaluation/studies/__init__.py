"""Studies that compare many trained networks, and their stored results."""
