"""What a run writes down while it trains: `log.csv` for plotting, the same numbers and pictures for TensorBoard.

`log.csv` has one row per step at which something was measured. A cell is empty where that column was not measured.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from slotlib import checkpoint

NAME = "log.csv"


class Log:
    """The records of a run in `folder`, begun or, after an interruption, gone on with.

    Args:
        folder: the run's.
        columns: what may be measured, beside `step` and `seconds`.
        first_step: what was written beyond this step is forgotten: the run is about to take those steps again.
    """

    def __init__(self, folder: Path, columns: Sequence[str], first_step: int = 0):
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.path, self.columns = folder / NAME, ["step", "seconds", *columns]
        kept = [row for row in _rows(self.path) if int(row["step"]) <= first_step]
        text = io.StringIO()
        # What an older version measured under another name is not gone on with.
        table = csv.DictWriter(text, self.columns, lineterminator="\n", extrasaction="ignore")
        table.writeheader()
        table.writerows(kept)
        checkpoint.write(self.path, text.getvalue().encode())
        self.board = SummaryWriter(folder / "tensorboard", purge_step=first_step + 1)

    def numbers(self, step: int, seconds: float, **groups: Mapping[str, float]) -> None:
        """One row: `numbers(100, 2.5, train={"loss": 0.1})` is column `loss` here and `train/loss` in TensorBoard.

        Values that are NaN were not measured.
        """
        tags = {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}
        tags = {tag: value for tag, value in tags.items() if not math.isnan(value)}
        row = {"step": step, "seconds": f"{seconds:.3f}", **{tag.split("/")[1]: value for tag, value in tags.items()}}
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(row)
        for tag, value in tags.items():
            self.board.add_scalar(tag, value, step)

    def pictures(self, step: int, rows: Mapping[str, Iterable[Float[np.ndarray, "height width 3"]]]) -> None:
        """Rows of pictures in [0, 1], for TensorBoard only; pictures of all rows should show the same scenes."""
        for name, row in rows.items():
            self.board.add_image(name, np.concatenate(list(row), axis=1), step, dataformats="HWC")

    def flush(self) -> None:
        """Write out what TensorBoard holds back for up to two minutes, so that no checkpoint is ahead of it."""
        self.board.flush()

    def close(self) -> None:
        self.board.close()


def _rows(path: Path) -> list[dict[str, str]]:
    """The complete rows of a log; none if there is no log. A last line without an end was cut off by a crash."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))


def read_log(folder: Path | str) -> dict[str, Float[np.ndarray, "rows"]]:
    """The columns of a run's `log.csv`, NaN where a column was not measured at that step.

    `log["step"]` against `log["loss"]` is the training curve; scores are measured less often, so drop their NaN.

    Raises FileNotFoundError when the folder holds no run.
    """
    path = Path(folder) / NAME
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no {NAME}: no run began there")
    rows = _rows(path)
    names = path.read_text(encoding="utf-8").split("\n", 1)[0].split(",")
    return {name: np.array([float(row[name] or math.nan) for row in rows]) for name in names}
