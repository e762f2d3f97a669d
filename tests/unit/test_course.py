"""What chapters share."""

import csv

import pytest

from slotlib import course


def test_runs_are_the_lines_of_their_file(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "_SHELVES", (tmp_path / "nowhere", tmp_path))
    with (tmp_path / "levers.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["lever", "seed", "score"], ["the recipe", 0, 0.5], ["less, and less", 1, ""]])
    assert course.runs("levers") == [
        {"lever": "the recipe", "seed": 0, "score": 0.5},
        {"lever": "less, and less", "seed": 1},  # it failed: there is no score to plot
    ]


def test_runs_that_are_missing_are_named_with_those_that_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "_SHELVES", (tmp_path,))
    (tmp_path / "levers.csv").touch()
    with pytest.raises(FileNotFoundError, match=r"'lever'.*levers"):
        course.runs("lever")
