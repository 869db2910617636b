"""The comparison with PyTorch on the CPU in float64: one table of everything built in that PyTorch has too.

It stands here and not in scripts/, which hold no logic of their own (docs/architecture.md), nor in the package, which
never needs torch. `scripts/compare_torch.py` prints the table, tests/scripts/test_compare_torch.py runs it.
"""
