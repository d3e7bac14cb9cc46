"""`python -m pbmon.cli`."""

import sys

from pbmon.cli import main

sys.exit(main())
