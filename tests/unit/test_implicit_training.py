"""The experiments behind the figures of chapter 06."""

from benchmarks import implicit_training
from slotlib.cli import read_config


def test_contestants_of_the_race_differ_in_their_gradient_alone(tmp_path):
    seen = set()
    for name, flags in implicit_training.GRADIENTS.items():
        config = implicit_training.run(name, name, 0, flags, tmp_path).config
        attention = config.model.attention
        seen.add((attention.gradient, attention.gradient_steps if attention.gradient != "exact" else 1))
        attention.gradient, attention.gradient_steps = "implicit", 3
        common = [*implicit_training.FROM_THE_START, "--model.attention.gradient_steps=3", "--train.seed=0"]
        assert config == read_config("tetrominoes_first", *common)
    assert len(seen) == len(implicit_training.GRADIENTS) == 5
