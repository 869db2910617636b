"""One reference for every kernel, one family a file, in array code that numpy and cupy both run."""
