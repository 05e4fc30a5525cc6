"""What should I turn on? The search for the fastest variant within budgets of quality, memory and time."""
