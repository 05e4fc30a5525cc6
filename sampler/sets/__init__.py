"""Sets of many samples: each sample's bytes are decided by its number alone, and a killed run is gone on with.

Networks are not batch-invariant, so every network call holds the same group of samples, whoever makes it: ids
g·B…(g+1)·B - 1, B being a constant of the set. What is written together, by how many processes, and what interrupts
them, then decides nothing.
"""
