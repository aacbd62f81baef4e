"""The tab Compare with a damaged comparison file, and with none."""

import pytest

gr = pytest.importorskip("gradio")


@pytest.mark.parametrize("plot", [False, True])
@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"rows": 1}', '{"rows": [1]}', '{"rows": []}', '{"rows": [{"name": "a"}]}']
)
def test_a_damaged_comparison_is_said_and_the_page_opens(text, plot, tmp_path):
    from sanbu.studio.image import comparison, latest_comparison

    (tmp_path / "compare.json").write_text(text)
    if plot:
        (tmp_path / "compare.png").write_text("no picture")
    note, table, picture = comparison(latest_comparison(tmp_path))
    whole = "name" in text and not plot
    assert note.visible is not whole and table.visible is whole and not picture.visible


def test_no_comparison_is_said(tmp_path):
    from sanbu.studio.image import comparison, latest_comparison

    note, table, picture = comparison(latest_comparison(tmp_path))
    assert note.visible and not table.visible and not picture.visible
