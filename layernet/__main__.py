"""`python -m layernet` is the `layernet` command."""

import sys

from layernet.cli.main import main

sys.exit(main())
