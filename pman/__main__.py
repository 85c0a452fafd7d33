"""`python -m pman` is `pman`."""

import sys

from pman.cli import main

sys.exit(main())
