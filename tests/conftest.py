"""What all tests share."""

import os

# one BLAS thread: the arrays of tests are small, and threads of several pools fight for the cores
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
