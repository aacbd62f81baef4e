"""The box for a label is there for runs that have labels only."""

from types import SimpleNamespace

import pytest

pytest.importorskip("gradio")
from sanbu.studio.image import label_parts, labelled


def service(**classes):
    def run(number):
        space = SimpleNamespace(classes=number)
        return SimpleNamespace(run=SimpleNamespace(recipe=SimpleNamespace(data=SimpleNamespace(space=lambda: space))))

    return SimpleNamespace(runs={name: run(number) for name, number in classes.items()})


def test_a_run_without_labels_has_a_line_instead_of_the_box():
    one = service(digits=10, faces=0)
    assert labelled(one, "digits") and not labelled(one, "faces")
    assert labelled(one, "expected")  # not trained yet
    box, line = label_parts(one, "faces")
    assert not box.visible and line.visible
    box, line = label_parts(one, "digits")
    assert box.visible and not line.visible
