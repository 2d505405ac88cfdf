"""`python -m intuitor_lib` is the console script `intuitor`."""

import sys

from .cli import main

sys.exit(main())
