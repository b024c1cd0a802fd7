"""Figures of the report: words that do not overlap, stay text, and are the same twice."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

from clinical_reasoner.evaluation.metrics import Estimate
from clinical_reasoner.evaluation.plots import confusion_svg, forest_svg

TEXT = "{http://www.w3.org/2000/svg}text"


def test_labels_of_seven_models_with_long_names_do_not_overlap() -> None:
    rows = [
        (f"Student number {i}, rationale then label, with images and LoRA", Estimate(value=0.5, low=0.4, high=0.6))
        for i in range(7)
    ]
    texts = list(ElementTree.fromstring(forest_svg(rows, "Accuracy", prefix="f", ceiling=0.55)).iter(TEXT))
    names = [text for text in texts if (text.text or "").startswith("Student")]
    values = [text for text in texts if "[" in (text.text or "")]
    assert len(names) == len(values) == 7
    heights = [float(text.get("y", "nan")) for text in names]
    assert min(lower - upper for upper, lower in pairwise(heights)) > 20
    # In points: a bold letter of 9 pt is less than 6 wide on average, a figure of the numbers less than 5.5.
    for name, value in zip(names, values, strict=True):
        name_ends = float(name.get("x", "nan")) + 6 * len(name.text or "")
        value_starts = float(value.get("x", "nan")) - 5.5 * len(value.text or "")
        assert name_ends < value_starts


def test_figures_are_the_same_twice_and_keep_words_as_text() -> None:
    counts = [[5, 1, 0, 1], [2, 3, 1, 0], [0, 0, 0, 0]]
    one = confusion_svg(counts, ["AD", "MCI", "$x_1$"], 'a "b" $c$', prefix="p")
    assert one == confusion_svg(counts, ["AD", "MCI", "$x_1$"], 'a "b" $c$', prefix="p")
    words = [text.text for text in ElementTree.fromstring(one).iter(TEXT)]
    assert words.count("$x_1$") == 2 and "unparsed" in words
    assert sorted(word for word in words if word and word.isdigit()) == sorted(str(n) for row in counts for n in row)
