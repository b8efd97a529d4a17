"""Runs the notebooks: strictly, in parallel, offline."""
