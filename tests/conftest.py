"""What all tests share."""

import os

# one thread: the arrays of tests are small, and threads that wait for each other on a busy machine take seconds.
# Compiled kernels may have three where a test asks for them, so that shares of work are tested on any machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "3")

from layernet.backend import compiled

if compiled.problem() is None:
    import numba

    numba.set_num_threads(1)
