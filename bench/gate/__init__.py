"""The gate: two revisions of the code, each in processes of its own, judged against each other here and now."""
