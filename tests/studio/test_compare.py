"""The tab Compare with a damaged comparison file."""

from types import SimpleNamespace

import pytest

gr = pytest.importorskip("gradio")


@pytest.mark.parametrize("plot", [False, True])
@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"rows": 1}', '{"rows": [1]}', '{"rows": []}', '{"rows": [{"name": "a"}]}']
)
def test_a_damaged_comparison_is_said_and_the_page_opens(text, plot, tmp_path):
    from sanbu.studio.image import compare_tab

    (tmp_path / "compare.json").write_text(text)
    if plot:
        (tmp_path / "compare.png").write_text("no picture")
    with gr.Blocks() as page:
        compare_tab(SimpleNamespace(runs={}), tmp_path)
    whole = "name" in text and not plot
    assert any(isinstance(block, gr.Markdown) for block in page.blocks.values()) is not whole
    assert any(isinstance(block, gr.Dataframe) for block in page.blocks.values()) is whole
