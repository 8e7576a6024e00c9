"""`python -m metrics_exporter`."""

import sys

from metrics_exporter.command import main

if __name__ == "__main__":
    sys.exit(main())
