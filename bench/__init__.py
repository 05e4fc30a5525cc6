"""Measurements of the sampler: speed, and the quality of what it draws."""
