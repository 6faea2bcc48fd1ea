"""Trains and evaluates PPO policies.

    python launch.py train                                            HalfCheetah-v4 with the default settings
    python launch.py train --config configs/humanoid.yaml --seed 3    settings from a file, one of them changed
    python launch.py train --resume                                   goes on with the latest run
    python launch.py evaluate latest                                  plays the best policy of the latest run
    python launch.py train --help                                     every flag

The console script `distppo` and `python -m distppo` are the same program.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - whoever has only an older Python learns it here, not from a SyntaxError
    print(f"error: distppo needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}", file=sys.stderr)
    sys.exit(2)

from distppo.cli import main

if __name__ == "__main__":
    sys.exit(main())
