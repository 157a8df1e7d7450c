"""Two programs compared: what a change costs, and why."""
