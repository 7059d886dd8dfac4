"""The champion rule as a law."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.deploy_model.champion import compare, mcnemar

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60)


def split(pairs):
    return [new for new, _ in pairs], [old for _, old in pairs]


@given(PAIRS, st.floats(1e-6, 0.5))
def test_only_more_right_can_win(pairs, significance):
    new, old = split(pairs)
    if compare(new, old, significance).better:
        assert sum(new) > sum(old)


@given(PAIRS)
def test_at_one_half_one_more_right_is_enough(pairs):
    new, old = split(pairs)
    assert compare(new, old, 0.5).better == (sum(new) > sum(old))


@given(PAIRS, st.floats(1e-6, 0.5))
def test_not_both_orders_win(pairs, significance):
    new, old = split(pairs)
    assert not (compare(new, old, significance).better and compare(old, new, significance).better)


@given(st.lists(st.booleans(), max_size=60))
def test_tie_keeps_the_champion(answers):
    result = compare(answers, answers, 0.5)
    assert not result.better
    assert "a tie, so the champion stays" in result.reason


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"), [(0, 0, 1.0), (1, 0, 0.5), (5, 0, 1 / 32), (3, 1, 5 / 16)]
)
def test_p_value_is_the_tail_of_a_coin(gained, lost, p_value):
    assert mcnemar(gained, lost) == pytest.approx(p_value)


def test_photos_must_be_the_same():
    with pytest.raises(ValueError, match="zip"):
        compare([True], [True, False], 0.05)


SIGNIFICANCE = st.floats(1e-6, 0.5)


@given(PAIRS, SIGNIFICANCE)
def test_better_is_what_the_test_says(pairs, significance):
    new, old = split(pairs)
    result = compare(new, old, significance)
    surely = mcnemar(result.gained, result.lost) <= significance
    assert result.better == (result.gained > result.lost and surely)


@given(PAIRS, SIGNIFICANCE)
def test_one_photo_less_right_never_helps_a_challenger(pairs, significance):
    challenger, champion = split(pairs)
    if compare(challenger, champion, significance).better:
        return
    for index, right in enumerate(challenger):
        if right:
            worse = [*challenger[:index], False, *challenger[index + 1 :]]
            assert not compare(worse, champion, significance).better


@given(PAIRS, SIGNIFICANCE, st.randoms())
def test_order_of_the_photos_changes_nothing(pairs, significance, chance):
    shuffled = list(pairs)
    chance.shuffle(shuffled)
    (first, second), (new, old) = split(pairs), split(shuffled)
    assert compare(new, old, significance) == compare(first, second, significance)
