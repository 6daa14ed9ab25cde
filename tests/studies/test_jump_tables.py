"""Tables of the jumps study that leave rows out or put them together."""

import pandas as pd
import pytest

from headspec.studies.jump_study_views import accuracy_means
from headspec.studies.jump_tables import looked_into, with_several_jumps


def test_moments_that_were_looked_into():
    moments = pd.DataFrame(
        {
            "model": "cnn",
            "seed": [0, 0, 0, 0, 0, 1],
            "moment": [0, 1, 2, 3, 4, 0],
            "kind": ["jump", "candidate", "control", "control", "landmark", "jump"],
            "matched": [None, None, 0, 0, None, None],
            "type": None,
            "before": [1, 2, 3, 4, None, 5],
        }
    )
    found = looked_into(moments)
    assert found["kind"].tolist() == ["jump", "candidate", "jump"]
    assert found["controls"].tolist() == [2, 0, 0]  # moment 0 of the other seed has none
    assert found["before"].tolist() == [1, 2, 5]


def test_coordination_of_a_single_jump_says_nothing():
    rows = pd.DataFrame({"model": ["cnn", "mlp", "all"], "n": [1, 5, 2], "value": [0.0, 0.4, 0.3]})
    assert with_several_jumps(rows)["model"].tolist() == ["mlp", "all"]


def test_means_of_accuracy():
    accuracy = pd.DataFrame(
        {
            "model": "mlp",
            "seed": 0,
            "class": [0, 1] * 5,
            "step": [0, 0, 2, 2, 4, 4, 6, 6, 8, 8],
            "value": [0.0, 1.0, 0.2, 1.0, 0.4, 0.0, 0.6, 0.5, 1.0, 0.3],
        }
    )
    found = accuracy_means(accuracy, together=2).set_index(["class", "step"])["value"]
    expected = {(0, 2): 0.1, (1, 2): 1.0, (0, 6): 0.5, (1, 6): 0.25, (0, 8): 1.0, (1, 8): 0.3}
    assert found.to_dict() == pytest.approx(expected)
    assert len(found) == 6
