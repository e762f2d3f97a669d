"""`make gpu` is for a machine that has one."""

import pytest
import torch

from benchmarks import gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "gpu.json")
    gpu.main()
    assert "no CUDA device" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_every_recipe_that_it_times_can_be_built():
    for name in ("tetrominoes_fast", "clevr6_paper"):
        assert gpu.read_config(name).model.resolution > 0


def test_the_page_has_a_place_for_it(root):
    assert "{{ gpu }}" in (root / "book/benchmarks.md").read_text("utf-8")
