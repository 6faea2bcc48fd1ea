"""`python -m distppo ...`, the same as `launch.py`."""

import sys

from distppo.cli import main

if __name__ == "__main__":
    sys.exit(main())
