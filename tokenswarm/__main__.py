"""`python -m tokenswarm`: the same as the command `tokenswarm`."""

import sys

from tokenswarm.cli import main

if __name__ == "__main__":
    sys.exit(main())
