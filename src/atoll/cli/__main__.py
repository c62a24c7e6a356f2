"""`python -m atoll.cli`: the client where no launcher is installed."""

import sys

from atoll.cli.main import main

sys.exit(main())
