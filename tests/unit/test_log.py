"""A run's log has a row for every look, in a file and in TensorBoard, and a crash leaves only whole rows."""

import math

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from slotlib.log import Log, read_log


def test_what_was_measured_comes_back_and_what_was_not_is_nan(tmp_path):
    log = Log(tmp_path, ["loss", "score"])
    log.numbers(10, 0.5, train={"loss": 2.0})
    log.numbers(20, 1.25, train={"loss": 1.0}, eval={"score": math.nan})
    log.numbers(30, 2.0, train={"loss": 0.5}, eval={"score": 0.75})
    log.close()
    found = read_log(tmp_path)
    assert list(found) == ["step", "seconds", "loss", "score"]
    assert found["step"].tolist() == [10, 20, 30]
    assert found["seconds"].tolist() == [0.5, 1.25, 2.0]
    assert found["loss"].tolist() == [2.0, 1.0, 0.5]
    np.testing.assert_array_equal(found["score"], [math.nan, math.nan, 0.75])


def test_a_run_that_goes_on_forgets_what_it_is_about_to_do_again(tmp_path):
    log = Log(tmp_path, ["loss"])
    for step in (1, 2, 3):
        log.numbers(step, step, train={"loss": step})
    log.close()
    path = tmp_path / "log.csv"
    path.write_text(path.read_text() + "4,4.0")  # a crash cut the row off
    again = Log(tmp_path, ["loss"], first_step=2)
    assert read_log(tmp_path)["step"].tolist() == [1, 2]
    again.numbers(3, 9.0, train={"loss": 7.0})
    again.close()
    assert read_log(tmp_path)["loss"].tolist() == [1, 2, 7]


def test_columns_of_before_are_not_gone_on_with(tmp_path):
    log = Log(tmp_path, ["loss", "fg_ari"])
    log.numbers(1, 1.0, train={"loss": 2.0}, eval={"fg_ari": 0.5})
    log.close()
    again = Log(tmp_path, ["loss", "drawn_fg_ari"], first_step=1)
    again.numbers(2, 2.0, train={"loss": 1.0}, eval={"drawn_fg_ari": 0.25})
    again.close()
    found = read_log(tmp_path)
    assert list(found) == ["step", "seconds", "loss", "drawn_fg_ari"]
    assert found["loss"].tolist() == [2, 1]
    np.testing.assert_array_equal(found["drawn_fg_ari"], [math.nan, 0.25])


def test_tensorboard_has_the_same_numbers_by_group_and_the_pictures(tmp_path):
    log = Log(tmp_path, ["loss", "score"])
    log.numbers(5, 0.1, train={"loss": 0.5}, eval={"score": math.nan})
    log.pictures(5, {"scenes/image": [np.zeros((4, 6, 3)), np.ones((4, 6, 3))]})
    log.flush()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (event,) = board.Scalars("train/loss")
    assert (event.step, event.value) == (5, 0.5)
    assert board.Tags()["scalars"] == ["train/loss"]
    (picture,) = board.Images("scenes/image")
    assert (picture.width, picture.height) == (12, 4)
    log.close()


def test_without_a_run_there_is_no_log(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no log\.csv"):
        read_log(tmp_path)
