"""Compare, where the file that it reads is damaged."""

from types import SimpleNamespace

import pytest

gr = pytest.importorskip("gradio")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"rows": 1}', '{"rows": [1]}', '{"rows": []}'])
def test_a_damaged_comparison_is_said_and_the_page_opens(text, tmp_path):
    from sanbu.studio.image import compare_tab

    (tmp_path / "compare.json").write_text(text)
    (tmp_path / "compare.png").write_text("no picture")
    with gr.Blocks() as page:
        compare_tab(SimpleNamespace(served={}), tmp_path)
    assert any(isinstance(block, gr.Markdown) for block in page.blocks.values())
    assert not any(isinstance(block, gr.Dataframe) for block in page.blocks.values())
