"""``python -m limbeck_core`` is ``limbeck``; torchrun needs the module form."""

import sys

from limbeck_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
