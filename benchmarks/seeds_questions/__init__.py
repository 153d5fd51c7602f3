"""The questions that the seed systems ask, one function each, by the number they have in docs/seeds.md."""

from __future__ import annotations

from collections.abc import Callable

from .bench import Answer, Bench
from .comparisons import bottleneck_or_skips, regression_or_classification
from .distance import is_rgb_error_a_distance
from .elsewhere import unlike_the_training_set
from .epochs import more_epochs
from .memory import learnt_by_heart
from .mistakes import which_mistakes
from .superres import from_small_to_large
from .transfer import does_it_help
from .two_ways import what_squared_error_wants

QUESTIONS: dict[int, Callable[[Bench], Answer]] = {
    1: is_rgb_error_a_distance,
    2: what_squared_error_wants,
    3: more_epochs,
    4: regression_or_classification,
    5: learnt_by_heart,
    6: bottleneck_or_skips,
    7: which_mistakes,
    8: unlike_the_training_set,
    9: does_it_help,
    10: from_small_to_large,
}
