"""What a fused posterior update is worth: its bandwidth at every size, and what that saves in a step and an image."""
