"""Starts the command line as `python -m mvm_guest`."""

import sys

from mvm_guest.cli import main

sys.exit(main())
