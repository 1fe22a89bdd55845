"""`python -m dits_adapter.cli`."""

import sys

from dits_adapter.cli import main

sys.exit(main())
