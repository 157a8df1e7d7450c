"""What the commands show: results gathered from the instruments, as data and as tables."""
