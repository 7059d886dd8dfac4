"""The champion rule: may the challenger take the place of the model that serves now?"""

import dataclasses
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Challenger against champion on the same test photos.

    Attributes:
        better: Whether the challenger takes the place.
        reason: Why, in one sentence.
        examples: Number of test photos.
        challenger_correct: Number the challenger has right.
        champion_correct: Number the champion has right.
        gained: Number only the challenger has right.
        lost: Number only the champion has right.
        p_value: Of the one-sided exact McNemar test.
    """

    better: bool
    reason: str
    examples: int
    challenger_correct: int
    champion_correct: int
    gained: int
    lost: int
    p_value: float


def mcnemar(gained: int, lost: int) -> float:
    """Chance of at least `gained` gains among the photos that the two models judge differently.

    Under the null hypothesis a gain and a loss are as likely. The test is exact, so that it holds
    for few photos too.

    Args:
        gained: Photos that only the challenger has right.
        lost: Photos that only the champion has right.

    Returns:
        p-value, one-sided; 1 when the models judge all photos alike.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions
        or percentages" (1947).
    """
    differing = gained + lost
    tail = sum(math.comb(differing, count) for count in range(gained, differing + 1))
    return float(tail / 2**differing)


def compare(
    challenger: Sequence[bool], champion: Sequence[bool], significance: float
) -> Comparison:
    """Decides between two models; a tie keeps the champion.

    Args:
        challenger: Whether it has each test photo right.
        champion: The same for the same photos in the same order.
        significance: Largest p-value at which the challenger counts as better.
    """
    pairs = list(zip(challenger, champion, strict=True))
    gained = sum(new and not old for new, old in pairs)
    lost = sum(old and not new for new, old in pairs)
    p_value = mcnemar(gained, lost)
    better = gained > lost and p_value <= significance
    if better:
        verdict = "the challenger is better"
    elif gained > lost:
        verdict = "the challenger is not surely better, so the champion stays"
    elif gained == lost:
        verdict = "a tie, so the champion stays"
    else:
        verdict = "the champion is better and stays"
    reason = (
        f"{verdict}: {sum(challenger)} against {sum(champion)} of {len(pairs)} test photos right, "
        f"{gained} gained, {lost} lost, p = {p_value:.3g} (at most {significance:g} is asked for)"
    )
    return Comparison(
        better, reason, len(pairs), sum(challenger), sum(champion), gained, lost, p_value
    )
