"""Train from a clone, as OpenMMLab hands expect it: ``python tools/train.py CONFIG ...`` is ``limbeck train``."""

import sys

from limbeck_core.cli import main

sys.exit(main(["train", *sys.argv[1:]]))
