"""Faster versions of definitions in `sampler`; each has the signature of what it imitates."""
