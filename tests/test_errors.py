"""Errors say expected, got, what to do; a bad choice is never taken as something else."""

import pickle
import subprocess
import sys

import pytest

from headspec.errors import CheckpointError, InputError, check_choice

SETUP = """
import pandas as pd, headspec as hs
steps = [0, 1, 2, 4, 8, 16, 32, 64]
frame = pd.DataFrame({"step": steps, "metric": "m", "value": [0, 0, 0, 0, 1, 1, 1, 1.0]})
heads = hs.open_suite("micro-tiny").head_weights(0, 0)
"""


def test_an_error_says_what_was_wrong_and_what_to_do():
    error = InputError(expected="a step", got="none.", fix="Name one.")
    assert str(error) == "expected a step; got none. Name one."
    assert isinstance(error, ValueError)


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(CheckpointError(expected="a", got="b", fix="C.")))
    assert (type(error), error.expected, error.fix) == (CheckpointError, "a", "C.")


def test_a_choice_is_named_with_the_others():
    check_choice("axis", "step", ("step", "log_step"))
    with pytest.raises(InputError, match="axis out of 'step', 'log_step'; got 'time'"):
        check_choice("axis", "time", ("step", "log_step"))


@pytest.mark.parametrize(
    "call",
    [
        "hs.find_transition(frame, 'm', axis='time')",
        "hs.find_transition(frame, 'm', drift='zz')",
        "hs.find_transition(frame, 'm', dtype='zz')",
        "hs.emergence_step(frame, 'm', chance=0.0, direction='up')",
        "hs.changepoints(frame, 'm', segments='zz')",
        "hs.sweep(hs.open_suite('micro-tiny'), len, on_error='ignore')",
        "hs.sweep('micro', len)",
        "hs.cluster_heads(heads, feature='zz')",
        "hs.cluster_heads(heads, method='zz')",
        "hs.cluster_heads(heads, null='zz')",
        "hs.compare_clusters(heads, [0, 0, 0, 1, 1, 1], n_permutations=0)",
        "hs.ClusterMeasure(layers=1)",
        "hs.open_suite('micro').head_weights(0, 99)",
        "hs.open_suite('micro').head_weights(0, 1.5)",
        "hs.open_suite('micro').head_weights('0', 1)",
    ],
)
def test_bad_arguments_are_input_errors_without_run_time_type_checks(call):
    code = f"{SETUP}\ntry:\n    {call}\nexcept hs.InputError as error:\n    print('said:', error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("said: expected"), done.stdout + done.stderr[-500:]
