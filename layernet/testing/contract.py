"""The layer contract as tests: every promise of docs/architecture.md, asked of one layer.

A rule is a function that raises `Broken` where a promise is not kept; its name, with spaces, is the rule's name in
messages.
"""

from __future__ import annotations

from collections.abc import Callable

from layernet.testing import rules_passes as passes
from layernet.testing import rules_values as values
from layernet.testing.bench import Subject

RULES: tuple[Callable[[Subject], None], ...] = (
    values.shapes_and_types,
    values.precision,
    passes.self_untouched,
    passes.arrays_untouched,
    values.strided_arrays,
    passes.independent_passes,
    passes.accumulation,
    values.evaluation_is_deterministic,
    values.randomness_is_keyed,
    values.config_round_trip,
    values.state_round_trip,
    values.batch_independence,
    values.batches_of_any_size,
    values.linear_in_dy,
    passes.inside_a_residual,
    passes.inside_a_recompute,
    passes.tied,
    passes.called_twice,
    passes.nothing_kept,
    passes.only_what_is_needed,
    passes.one_backward,
    passes.work_areas,
    values.flops,
)
