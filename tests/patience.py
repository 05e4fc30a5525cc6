"""How long a test waits for another process: a hang ends, and a machine on which other work burns every core does not.

No test asserts that anything is fast.
"""

PATIENCE_S = 600.0
