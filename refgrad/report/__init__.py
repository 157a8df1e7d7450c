"""Output of the commands: results gathered from the instruments, as data and as tables."""
