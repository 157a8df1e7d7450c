"""`python -m refgrad` is the `refgrad` command."""

import sys

from refgrad.cli import main

sys.exit(main())
