"""Reports: one file that needs nothing else, with texts escaped and pictures inside."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from limbeck_core.errors import ConfigError
from limbeck_core.report import Report, draw_curves, spread


class Checker(HTMLParser):
    """Collects tags, and complains of one that is closed out of order."""

    void = {"meta", "img"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page() -> Report:
    curves = draw_curves(
        {"plain": [[1.0, 2.0], [1.5, 2.5]], "distilled": [[2.0, 3.0]]}, x_label="epoch", y_label="top-1 (%)"
    )
    return (
        Report("A <title> & more", "What `code` says: 1 < 2")
        .heading("Numbers")
        .table(["", "accuracy"], [["student", spread([90.0, 91.0])]], caption="Three seeds")
        .figure("curves", curves, alt='accuracy over "epochs"', caption="Thin: seeds")
        .code("limbeck train <config>")
    )


def test_html_is_well_formed_and_escaped() -> None:
    checker = Checker()
    checker.feed(page().html())
    assert checker.open == []
    assert {"table", "caption", "figure", "figcaption", "img", "h1", "h2", "pre", "code"} <= set(checker.seen)
    assert "<title>A &lt;title&gt; &amp; more</title>" in page().html()
    assert 'alt="accuracy over &quot;epochs&quot;"' in page().html()
    assert "1 &lt; 2" in page().html()


def test_page_refers_to_nothing_outside() -> None:
    html = page().html()
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []
    assert "http" not in html
    assert "url(" not in html


def test_pictures_stand_inside_and_beside(tmp_path: Path) -> None:
    path = page().write(tmp_path / "out")
    inside = re.search(r"base64,([^\"]+)", path.read_text(encoding="utf-8")).group(1)
    assert base64.b64decode(inside) == (tmp_path / "out" / "curves.png").read_bytes()


def test_png_files_are_taken_and_others_refused(tmp_path: Path) -> None:
    page().write(tmp_path)
    Report("again").figure("curves", tmp_path / "curves.png", alt="curves")
    (tmp_path / "bad.png").write_bytes(b"GIF89a")
    with pytest.raises(ConfigError, match="is not a PNG file"):
        Report("again").figure("bad", tmp_path / "bad.png", alt="nothing")


@pytest.mark.parametrize("name", ["../x", "", "a b"])
def test_names_of_pictures_are_file_names(name: str) -> None:
    with pytest.raises(ConfigError, match="plain file name of its own"):
        Report("t").figure(name, draw_curves({"a": [[1.0]]}, x_label="x", y_label="y"), alt="a")


def test_two_pictures_of_one_name() -> None:
    with pytest.raises(ConfigError, match="plain file name of its own"):
        page().figure("curves", draw_curves({"a": [[1.0]]}, x_label="x", y_label="y"), alt="a")


def test_table_that_scrolls_is_reached_and_named_without_a_mouse() -> None:
    html = Report("t").table(["a"], [["1"]], caption='"Three" `seeds`').html()
    assert '<div class="scroll" role="region" tabindex="0" aria-label="&quot;Three&quot; seeds">' in html


def test_epochs_are_counted_in_whole_numbers() -> None:
    axes = draw_curves({"a": [list(range(20))]}, x_label="epoch", y_label="y").axes[0]
    assert all(float(tick).is_integer() for tick in axes.get_xticks())


def test_row_of_another_length() -> None:
    with pytest.raises(ConfigError, match="a row has 1 cells, the table 2 columns"):
        Report("t").table(["a", "b"], [["only"]])


def test_curves_of_unequal_seeds() -> None:
    with pytest.raises(ConfigError, match=r"the seeds of 'a' have \[1, 2\] values"):
        draw_curves({"a": [[1.0], [1.0, 2.0]]}, x_label="x", y_label="y")


def test_nothing_to_draw() -> None:
    with pytest.raises(ConfigError, match="nothing to draw"):
        draw_curves({"a": []}, x_label="x", y_label="y")


def test_spread() -> None:
    assert spread([1.0]) == "1.00"
    assert spread([1.0, 2.0], 1) == "1.5 ± 0.7"
    with pytest.raises(ConfigError, match="at least one value"):
        spread([])
