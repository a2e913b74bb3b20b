"""Evaluate from a clone: ``python tools/test.py CONFIG --checkpoint F`` is ``limbeck test``."""

import sys

from limbeck_core.cli import main

sys.exit(main(["test", *sys.argv[1:]]))
