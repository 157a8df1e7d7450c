"""Exit codes of a process that a signal ended: 128 and the signal's number, as shells count."""

from signal import SIGINT

BY_SIGNAL = 128
INTERRUPTED = BY_SIGNAL + SIGINT
