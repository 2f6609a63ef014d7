"""`python -m valueflow.cli`: the command `valueflow`."""

import sys

from valueflow.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
