"""The first cell of a chapter where slotlib is not installed: in a clone, outside of one, without an address.

Nobody can test in Colab itself, so these tests build what Colab is: an environment with torch and the usual
packages but without slotlib. By default the packages are links to those of the running environment, and pip
gets no network. With SLOTLIB_EMPTY_VENV=1, as in CI, there is also an environment with nothing in it but
torch, into which the cell really installs everything else.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "tools"))
import stamp  # noqa: E402

CHAPTER = "02_slot_attention"
# Says which slotlib was found, after the cell that every chapter starts with.
AFTER = f"""
slotlib.course.begin("{CHAPTER}")
print("slotlib at", slotlib.__file__)
import torch
print("torch at", torch.__version__)
"""

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def run(*command: object, cwd: Path = ROOT, **environment: str) -> str:
    """Run a command; returns what it printed, fails with it otherwise."""
    done = attempt(*command, cwd=cwd, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def attempt(*command: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    # Neither this run's PYTHONPATH nor a SLOTLIB_SOURCE of the user's may leak in.
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SLOTLIB_SOURCE")}
    inherited["PIP_NO_COMPILE"] = "1"  # of some ten thousand files these tests import a few hundred
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A bare clone of the tree as it is now, uncommitted changes included."""
    listed = attempt("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    if listed.returncode:
        pytest.skip("this copy of the book is no git repository")
    origin = tmp_path_factory.mktemp("origin")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (origin / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, origin / name)
    run("git", "init", "--quiet", cwd=origin)
    run("git", "add", "--all", cwd=origin)
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    run("git", *identity, "commit", "--quiet", "--message", "the tree under test", cwd=origin)
    clone = tmp_path_factory.mktemp("elsewhere") / "book"
    run("git", "clone", "--quiet", origin, clone)
    return clone


@pytest.fixture(scope="module")
def wheel(clone, tmp_path_factory) -> Path:
    """A wheel of the library, built from the clone."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip")
    run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, clone)
    return next(folder.glob("slotlib-*.whl"))


@pytest.fixture(
    scope="module",
    params=[
        "preinstalled",
        pytest.param(
            "empty",
            marks=pytest.mark.skipif(
                os.environ.get("SLOTLIB_EMPTY_VENV") != "1",
                reason="installs everything anew; set SLOTLIB_EMPTY_VENV=1",
            ),
        ),
    ],
)
def environment(request, tmp_path_factory):
    """(python, environment variables) of an environment without slotlib."""
    folder = tmp_path_factory.mktemp(request.param)
    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    if request.param == "empty":
        pinned = next(r for r in (ROOT / "requirements.txt").read_text("utf-8").split() if r.startswith("torch=="))
        run(python, "-m", "pip", "install", "--quiet", pinned)
        return python, {}
    run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools")  # would hide the linked one
    packages = folder / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        # Not slotlib, and not pip, which the new environment has itself.
        if not path.name.lstrip("_").startswith(("slotlib", "pip")) and path.suffix != ".pth":
            (packages / path.name).symlink_to(path)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(site) / "preinstalled.pth").write_text(f"{packages}\n")
    # PIP_NO_BUILD_ISOLATION=0 is how pip spells --no-build-isolation in the environment.
    return python, {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}


@pytest.fixture
def first_cell(environment, tmp_path):
    """Runs the first cell in a folder; afterwards slotlib is uninstalled again."""
    python, variables = environment

    def run_cell(cwd: Path, address: str = "", **more: str) -> subprocess.CompletedProcess:
        cell = tmp_path / "cell.py"
        cell.write_text(stamp.setup_block(address) + AFTER, "utf-8")
        # A notebook has its own folder on the path, not the script's.
        start = f"import sys; sys.path[0] = ''; exec(compile(open({str(cell)!r}).read(), 'cell', 'exec'))"
        return attempt(python, "-c", start, cwd=cwd, **variables, **more)

    run_cell.torch = run(python, "-c", "import torch; print(torch.__version__)", cwd=tmp_path).strip()
    yield run_cell
    run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "slotlib", cwd=tmp_path)


def test_inside_a_clone_the_library_beside_the_chapter_is_used(first_cell, clone):
    done = first_cell(clone / "chapters")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"slotlib at {clone.resolve() / 'slotlib'}" in done.stdout
    assert "Chapter 2" in done.stdout
    assert f"torch at {first_cell.torch}" in done.stdout


def test_outside_a_clone_a_wheel_is_installed(first_cell, wheel, tmp_path):
    done = first_cell(tmp_path, SLOTLIB_SOURCE=str(wheel))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "site-packages" in done.stdout.partition("slotlib at ")[2]
    assert f"torch at {first_cell.torch}" in done.stdout
    # Once it is there, nothing is installed again.
    again = first_cell(tmp_path, SLOTLIB_SOURCE="/no/such/wheel.whl")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "installing" not in again.stdout


def test_outside_a_clone_the_stamped_repository_is_installed(first_cell, clone, tmp_path):
    done = first_cell(tmp_path, address=clone.as_uri())
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"installing from git+{clone.as_uri()}" in done.stdout
    assert "site-packages" in done.stdout.partition("slotlib at ")[2]
    assert f"torch at {first_cell.torch}" in done.stdout


def test_without_an_address_it_says_what_to_do(first_cell, tmp_path):
    done = first_cell(tmp_path)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: slotlib is missing.")
    assert "clone" in last
    assert "SLOTLIB_SOURCE" in last
    assert "During handling" not in done.stderr


def test_the_wheel_carries_configurations_checkpoints_and_timings(clone, wheel):
    import zipfile

    inside = set(zipfile.ZipFile(wheel).namelist())
    assert not {name for name in inside if name.startswith(("tests/", "chapters/", "book/", "data/"))}
    for source, packed in (("slotlib", "slotlib"), ("data/checkpoints", "slotlib/checkpoints")):
        for path in (clone / source).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":  # what tests have compiled there
                assert f"{packed}/{path.relative_to(clone / source).as_posix()}" in inside
