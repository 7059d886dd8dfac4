import pytest

from components.common import html


@pytest.mark.parametrize("peak", [0.0119, 0.012, 0.0121, 0.4, 3e5])
def test_labels_lie_inside_the_figure(peak):
    """With a peak of 0.012 the width of a label and the number of labels depend on each other."""
    drawn = html.new_figure(height=2.2)
    axes = drawn.subplots()
    axes.plot([0, 210], [0, peak])
    axes.set_ylabel("learning rate")
    axes.set_xlabel("epoch")
    html.figure(drawn, "rates")
    box = axes.get_tightbbox()
    assert box is not None
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= drawn.bbox.x1
    assert box.y1 <= drawn.bbox.y1
