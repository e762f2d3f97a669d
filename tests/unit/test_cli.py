"""The command line: packaged configurations, flags that override them, one line for each mistake."""

import json
import re
import subprocess
import sys

import pytest

import slotlib
from slotlib import baselines, checkpoint, cli, configuration, data, zoo
from slotlib.autoencoder import AutoencoderConfig
from slotlib.decoders import Broadcast, Coordinate, Separable
from slotlib.encoders import Paper, Strided
from slotlib.likelihoods import Average, Mixture
from slotlib.model import Ramp
from slotlib.patches import PatchConfig
from slotlib.svq import SVQConfig
from slotlib.training import Config

TINY = [
    "--model.encoder.class_path=Strided",
    "--model.encoder.channels=4",
    "--model.attention.slot_dim=8",
    "--model.attention.mlp_hidden_dim=8",
    "--model.decoder.class_path=Separable",
    "--model.decoder.channels=8",
    "--train.batch_size=2",
    "--train.eval_images=4",
    "--train.warmup_steps=0",
    "--train.accelerator=cpu",
]


def said(capsys, arguments):
    """What a command that fails says, which is one line, and its exit status."""
    with pytest.raises(SystemExit) as error:
        cli.main(arguments)
    message, status = capsys.readouterr().err, error.value.code
    if isinstance(status, str):  # Python prints it, and exits with 1
        message, status = message + status, 1
    assert message.strip().count("\n") == 0
    return message.strip(), status


# --- configurations ---


def test_a_flag_overrides_the_file(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(cli.training, "train", lambda config, folder, resume: seen.update(vars(config), resume=resume))
    flags = "--model.attention.num_slots", "5", "--train.lr", "1e-3", "--train.start_parts=[encoder]"
    cli.main(["train", "--config", "tetrominoes", f"--folder={tmp_path}", "--resume=false", *flags])
    expected = cli.read_config("tetrominoes")
    expected.model.attention.num_slots, expected.train.lr, expected.train.start_parts = 5, 1e-3, ["encoder"]
    assert seen == {**vars(expected), "resume": False}


def test_without_a_file_the_defaults_are_the_papers():
    assert cli._config([], []) == Config(AutoencoderConfig())


def test_of_several_files_later_ones_say_what_differs(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("model: {init_args: {attention: {num_slots: 3}}}\ndata: {options: {num_objects: 2}}")
    second.write_text("model: {decoder: {class_path: Coordinate}}\ntrain: {lr: 1e-3}")
    both = cli.read_config("shapes_first", f"--config={first}", "--config", str(second))
    shapes = cli.read_config("shapes_first")
    assert (both.model.attention.num_slots, both.model.attention.num_iterations) == (3, 16)
    assert both.model.decoder == Coordinate()  # and nothing of the other decoder
    assert both.model.encoder == shapes.model.encoder
    assert (both.train.lr, both.train.steps, both.data.options) == (1e-3, shapes.train.steps, {"num_objects": 2})


def test_init_args_may_be_left_out_of_a_flag():
    everything = "--model.init_args={resolution: 64}", "--model.decoder.class_path=Coordinate"
    assert cli._config([], everything).model == AutoencoderConfig(resolution=64, decoder=Coordinate())
    long = "--model.init_args.decoder.init_args.rank=3", "--model.init_args.attention.num_slots=2"
    short = "--model.decoder.rank=3", "--model.attention.num_slots=2"
    config = cli.read_config("shapes", *short)
    assert config == cli.read_config("shapes", *long)
    assert (config.model.decoder.rank, config.model.decoder.channels, config.model.attention.num_slots) == (3, 128, 2)


def test_a_class_comes_before_its_fields_wherever_it_stands():
    flags = "--model.decoder.rank=3", "--model.resolution=16", "--model.decoder.class_path=Separable"
    model = cli._config([], [*flags, "--model.class_path=SVQAutoencoder"]).model
    assert model == SVQConfig(resolution=16, decoder=Separable(rank=3))


def test_another_class_takes_no_fields_of_the_one_before():
    others = "--model.decoder.class_path=Broadcast", "--model.likelihood.class_path=Average"
    config = cli.read_config("shapes_first", *others)
    assert config.model.decoder == Broadcast() and config.model.likelihood == Average()
    assert cli.read_config("shapes", "--model.class_path=PatchVQVAE").model == PatchConfig()
    assert cli.read_config("shapes", "--model.encoder.class_path=Strided").model.encoder == Strided(channels=64)


def test_without_a_class_fields_are_what_differs_from_the_default():
    model = cli._config([], ["--model.class_path=SetPredictor", "--model.encoder.channels=3"]).model
    assert model.encoder == Paper(channels=3, stride=2) and model.attention.num_slots == 10


def test_a_flag_says_all_of_a_ramp_or_one_of_its_numbers():
    before = cli.read_config("tetrominoes_first").model.likelihood
    assert before == Mixture(noise=Ramp(0.2, start=0.8, over=1, curve="cosine"))
    for flag, noise in [
        ("--model.likelihood.noise={start: .4, end: .1, over: 1}", Ramp(0.1, start=0.4, over=1)),
        ("--model.likelihood.noise.end=.1", Ramp(0.1, start=0.8, over=1, curve="cosine")),
        ("--model.likelihood.noise=.25", 0.25),
    ]:
        assert cli.read_config("tetrominoes_first", flag).model.likelihood == Mixture(noise=noise)


def test_a_part_of_which_there_is_one_kind_says_which():
    with pytest.raises(ValueError, match=r"'Broadcast' is unknown; there are .*Separable"):
        cli.read_config("shapes", "--model.decoder.class_path=Broadcast")


def test_options_of_a_dataset_are_flags_too():
    flags = "--data.options={resolution: 64}", "--data.options.num_objects=[2, 3]"
    assert cli.read_config("clevr6", *flags).data.options == {"resolution": 64, "num_objects": [2, 3]}


def test_help_shows_every_field_with_its_purpose_as_the_flags_leave_it(capsys):
    cli.main(["train", "--config=shapes", "--model.decoder.rank=5", "--help"])
    text = capsys.readouterr().out
    fields = dict(re.findall(r"^  --(\S+) .*\n((?: {8}.*\n?)*)", text.partition("fields, ")[2], re.MULTILINE))
    config = cli.read_config("shapes").plain()

    def leaves(plain, where=""):
        for name, value in plain.items():
            inner = where if name == "init_args" else f"{where}.{name}"
            is_part = isinstance(value, dict) and inner != ".data.options" and "end" not in value
            yield from leaves(value, inner) if is_part else [inner[1:]]

    assert set(leaves(config)) <= set(fields)
    assert "  --model.decoder.rank int = 5\n" in text
    assert "Outer products per mask." in fields["model.decoder.rank"]
    assert all(purpose for name, purpose in fields.items())
    assert all("\n" not in line and len(line) <= 120 for line in text.splitlines() if line.startswith("        "))


MISTAKES = [
    (["--model.class_path=Magic"], "model.class_path: 'Magic' is unknown; there are "),
    (["--model.class_path=slotlib.vq.Nearest"], "model.class_path: 'slotlib.vq.Nearest' is no Model"),
    (
        ["--model.class_path=nowhere.Magic"],
        "model.class_path: cannot import 'nowhere.Magic': No module named 'nowhere'",
    ),
    (["--model.class_path=Model"], "Model must say which dataclass defines it"),
    (["--model=3"], "model must have a class_path and init_args, got 3"),
    (["--model.decoder.class_path=Magic"], "model.decoder.class_path: 'Magic' is unknown; there are "),
    (["--model.decoder.class_path=SlotAutoencoder"], "model.decoder.class_path: 'SlotAutoencoder' is unknown"),
    (["--model.likelihood.noise={end: .1, over: -1}"], "model.likelihood.noise: a Ramp's after and over must be at"),
    (["--model.likelihood.noise.over=-1"], "model.likelihood.noise: a Ramp's after and over must be at least 0"),
    (["--model.likelihood.noise=0"], "model.likelihood: noise must be "),
    (
        ["--model.attention.slots=3"],
        "model.attention has no field 'slots'; AttentionConfig has: competition, gradient,",
    ),
    (["--model.attention.num_slots=many"], "model.attention.num_slots must be int, got 'many'"),
    (["--train.learning_rate=1"], "train has no field 'learning_rate'; TrainConfig has: accelerator,"),
    (["--train.decay=never"], "train.decay must be 'halving' or 'cosine' or 'constant', got 'never'"),
    (["--train.steps=0"], "train.steps must be at least 1, got 0"),
    (["--train.lr=.nan"], "train.lr must be at least 0, got nan"),
    (["--lr=1"], "a configuration has model, data and train, got lr"),
    (["--train.lr"], "--train.lr needs a value"),
    (["--train.compile", "--train.lr=1"], "--train.compile needs a value"),
    (["3"], "expected a flag, such as --train.lr, got '3'"),
    (["--train.lr=[1"], "train.lr is no YAML"),
    (["--resume=perhaps"], "argument --resume: invalid choice: 'perhaps'"),
    (["--config=nonsense"], "no configuration 'nonsense': not a file, and slotlib ships "),
]


@pytest.mark.parametrize(("flags", "message"), MISTAKES, ids=[" ".join(flags) for flags, _ in MISTAKES])
def test_a_mistake_in_a_configuration_is_one_line_that_names_the_field(tmp_path, capsys, flags, message):
    text, status = said(capsys, ["train", "--config=shapes", f"--folder={tmp_path / 'run'}", *flags])
    assert text.startswith(f"slotlib train: {message}") and status == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: {class_path: SlotAutoencoder, resolution: 3}", "model: with class_path, fields stand in init_args"),
        ("model_class: SetPredictor", "a configuration has model, data and train, got model_class"),
        ("train: 3", "train must be the fields of a TrainConfig, got 3"),
        ("- 3", "must hold model, data and train, got [3]"),
        ("train: {lr: [}", "is no YAML: while parsing"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path, capsys, content, message):
    (tmp_path / "mine.yaml").write_text(content)
    text, status = said(capsys, ["train", f"--config={tmp_path / 'mine.yaml'}", f"--folder={tmp_path / 'run'}"])
    assert message in text and status == 2 and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.attention.num_heads=3"], "num_heads must divide slot_dim"),
        (["--model.decoder.colour_dims=64"], "colour_dims must be "),
        (["--model.encoder.class_path=EncoderConfig"], "EncoderConfig does not say what it builds"),
        (["--data.options.num_objects=99"], "num_objects must be within 1 to 12"),
        (["--data.options.objects=3"], "shapes has no option 'objects'; it has: num_objects"),
        (["--data.name=nowhere.draw"], "dataset 'nowhere.draw': cannot import"),
    ],
)
def test_what_cannot_be_built_leaves_nothing_behind(tmp_path, capsys, flags, message):
    text, status = said(capsys, ["train", "--config=shapes", f"--folder={tmp_path / 'run'}", *flags])
    assert text.startswith(f"slotlib: {message}") and status == 1
    assert not list(tmp_path.iterdir())


def test_a_model_trained_from_here_needs_a_dataclass_of_its_own(capsys):
    class Odd(slotlib.SlotAutoencoder):
        pass

    try:
        text, _ = said(capsys, ["train", "--folder=unused", f"--model.class_path={Odd.__qualname__}"])
        assert "model.class_path: Odd needs a dataclass of its own, as `config: MyConfig`" in text
    finally:
        del slotlib.Model.known[configuration.path(Odd)]


# --- runs ---


def trained(folder, *flags):
    """A run's weights."""
    cli.main(["train", f"--folder={folder}", *TINY, *flags])
    return (folder / "model.safetensors").read_bytes()


def test_what_does_not_change_a_run_may_change_when_it_goes_on(tmp_path, capsys):
    here, there = tmp_path / "here", tmp_path / "there"
    cli.main(["data", "export", "tetrominoes", f"--out={here}", "--format=folder", "--count=12"])
    own = "--train.decay=constant", "--data.options.resolution=35"
    whole = trained(tmp_path / "whole", *own, f"--data.name={here}", "--train.steps=6")
    cut = tmp_path / "cut"
    trained(cut, *own, f"--data.name={here}", "--train.steps=5", "--train.stop_at=3")
    here.rename(there)
    free = "--train.log_every=1", "--train.workers=1", "--train.eval_every=2", "--train.save_every=1"
    assert trained(cut, *own, f"--data.name={there}", "--train.steps=6", *free) == whole

    # The files are known again where they lie now: scores are of the scenes that were kept from training.
    capsys.readouterr()
    cli.main(["evaluate", str(cut / "model"), "--images=4"])
    scores = json.loads(capsys.readouterr().out)
    measured = {**zoo.load(cut / "model").card["metrics"][0], "scenes": "last of the files"}
    assert {name: scores[name] for name in scores if name != "baselines"} == measured
    cli.main(["evaluate", str(tmp_path / "whole" / "model"), f"--data={there}", "--images=4"])
    assert json.loads(capsys.readouterr().out) == scores

    # Everything else is another run.
    text, status = said(
        capsys, ["train", f"--folder={cut}", *TINY, *own, f"--data.name={there}", "--train.lr=1e-3", "--train.seed=7"]
    )
    assert status == 1
    assert re.search("another configuration.*train.seed was 0, is 7; train.lr was 0.0004, is 0.001", text)
    text, _ = said(capsys, ["train", f"--folder={cut}", "--resume=false", *TINY, *own, f"--data.name={there}"])
    assert "already holds a run" in text


@pytest.mark.parametrize(
    "why", [["--train.decay=cosine"], ["--model.attention.gradient_steps={start: 1, end: 2, after: 1}"]]
)
def test_more_steps_are_another_run_where_the_schedule_knows_its_length(tmp_path, capsys, why):
    steps = [f"--folder={tmp_path / 'run'}", *TINY, "--model.attention.gradient=implicit", *why, "--train.steps"]
    cli.main(["train", *steps, "2"])
    assert "(train.steps was 2, is 3)" in said(capsys, ["train", *steps, "3"])[0]


# --- the other commands ---


def test_evaluate_scores_scenes_from_files(capsys, tmp_path):
    folder = tmp_path / "scenes"
    cli.main(["data", "export", "tetrominoes", f"--out={folder}", "--format=folder", "--count=16"])
    capsys.readouterr()
    cli.main(["evaluate", "tetrominoes", f"--data={folder}", '--options={"resolution": [35, 35]}'])
    scores = json.loads(capsys.readouterr().out)
    assert scores["posterior_fg_ari"] > 0.8 and scores["images"] == 16 and scores["scenes"] == str(folder)
    assert "scenes_seed" not in scores


def test_evaluate_finds_the_files_of_a_run_from_any_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main(["data", "export", "tetrominoes", "--out=pictures", "--format=folder", "--count=16"])
    cli.main(["train", "--folder=run", *TINY, "--data.name=pictures", "--data.size=12", "--train.steps=2"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    capsys.readouterr()
    cli.main(["evaluate", "../run/model", "--images=4"])
    assert json.loads(capsys.readouterr().out)["images"] == 4
    (tmp_path / "pictures").rename(tmp_path / "moved")
    assert "--data says where it lies now" in said(capsys, ["evaluate", "../run/model"])[0]


def test_evaluate_prints_measured_scores(capsys):
    cli.main(["evaluate", "tetrominoes", "--images=32", "--scenes_seed=5", "--restarts=2"])
    scores = json.loads(capsys.readouterr().out)
    assert next(iter(scores)) == "drawn_fg_ari" and scores["posterior_fg_ari"] > 0.8
    assert (scores["images"], scores["scenes_seed"], scores["restarts"]) == (32, 5, 2)
    rules = baselines.scores(data.make("tetrominoes", 32, seed=5), 32)
    assert scores["baselines"] == {name: round(value, 5) for name, value in rules.items()}


def test_without_masks_nothing_stands_beside_the_error(capsys):
    cli.main(["evaluate", "patches_shapes", "--images=4"])
    assert "baselines" not in json.loads(capsys.readouterr().out)


def test_evaluate_needs_scenes_where_the_card_names_none(tmp_path, capsys):
    path = str(checkpoint.save(zoo.load("tetrominoes"), tmp_path / "bare", {}))
    assert "name scenes with --data" in said(capsys, ["evaluate", path])[0]
    cli.main(["evaluate", path, "--data=tetrominoes", "--images=8"])
    assert json.loads(capsys.readouterr().out)["images"] == 8


def test_evaluate_may_change_an_option_of_the_scenes(capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(cli.evaluation, "measured", lambda model, scenes, *how: seen.append(scenes.options) or {})
    cli.main(["evaluate", "clevr6", "--num_objects=4"])
    cli.main(["evaluate", "clevr6", "--options={num_objects: [3, 5]}"])
    cli.main(["evaluate", "clevr6", "--data=shapes"])
    assert seen == [{"num_objects": 4, "resolution": 64}, {"num_objects": [3, 5], "resolution": 64}, {}]


def test_data_draws_a_contact_sheet(tmp_path):
    sheet = tmp_path / "sheet.png"
    cli.main(["data", "preview", "tetrominoes", f"--out={sheet}", "--count=4", '--options={"num_objects": 2}'])
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_data_counts_what_is_there(capsys):
    cli.main(["data", "stats", "tetrominoes", "--count=70", "--seed=3", '--options={"num_objects": 2}'])
    batch = data.make("tetrominoes", 70, seed=3, num_objects=2).batch(range(70))
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["scenes"] == "70"
    assert lines["image"] == "35×35"
    assert lines["objects per image"] == "2 100.0%"
    assert lines["visible pixels per object"] == "least 100, median 100"
    image = batch["image"].double()
    for title, values in (("mean", image.mean((0, 2, 3))), ("spread", image.std((0, 2, 3), correction=0))):
        assert lines[f"{title} of red, green, blue"] == ", ".join(f"{value:.4f}" for value in values)
    red = (batch["objects"]["colour"] == 0).double().mean()
    assert f"red {red:.1%}" in lines["colour"]
    assert set(lines["shape"]) >= set("IOTSZJL")


@pytest.mark.parametrize("format", ["tfrecord", "hdf5", "folder"])
def test_data_exports_and_reads_back(tmp_path, capsys, format):
    out = tmp_path / ("scenes" + {"tfrecord": ".tfrecords", "hdf5": ".hdf5", "folder": ""}[format])
    cli.main(["data", "export", "shapes", f"--format={format}", f"--out={out}", "--count=6", "--seed=2"])
    cli.main(["data", "stats", "shapes", "--count=6", "--seed=2"])
    generated = capsys.readouterr().out.splitlines()[1:]
    cli.main(["data", "stats", str(out), "--count=100"])
    assert capsys.readouterr().out.splitlines()[:6] == generated[:6]
    cli.main(["data", "preview", str(out), f"--out={tmp_path / 'sheet.png'}"])
    assert (tmp_path / "sheet.png").is_file()


def test_zoo_lists_models_and_prints_cards(capsys):
    cli.main(["zoo"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in zoo.names())
    cli.main(["zoo", "tetrominoes"])
    assert json.loads(capsys.readouterr().out) == zoo.load("tetrominoes").card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "nonsense"], "no checkpoint 'nonsense'"),
        (["evaluate", "tetrominoes", "--images=0"], "at least 1"),
        (["evaluate", "tetrominoes", "--data=nowhere/scenes"], "no file or folder at nowhere/scenes"),
        (["evaluate", "tetrominoes", "--module=nowhere"], "No module named 'nowhere'"),
        (["data", "preview", "nonsense", "--out", "x.png"], "unknown dataset 'nonsense'"),
        (["data", "preview", "tetrominoes", "--out", "/proc/none/x.png"], "cannot write to the output folder"),
        (["data", "export", "tetrominoes", "--out", "/proc/none/x"], "cannot write to the output folder"),
        (["data", "stats", "tetrominoes", "--count=0"], "count must be"),
        (["data", "stats", __file__], "not a TFRecords file"),
        (["train", "--folder", "/proc/none"], "cannot write to the output folder"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    text, status = said(capsys, arguments)
    assert message in text and status == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "slotlib: the following arguments are required: train|sweep|evaluate|data|export|zoo"),
        (["dance"], "slotlib: argument train|sweep|evaluate|data|export|zoo: invalid choice: 'dance'"),
        (["train"], "slotlib train: --folder is needed"),
        (["data", "stats"], "slotlib data stats: the following arguments are required: name"),
        (["data", "stats", "shapes", "--options=3"], "expected names and values, such as '{num_objects: 3}', got '3'"),
        (["evaluate", "tetrominoes", "--imagez=3"], "unrecognized arguments: --imagez=3"),
        (["evaluate", "tetrominoes", "--accelerator=GPU:99"], "'GPU:99' cannot be used here; there is cpu"),
        (["evaluate", "tetrominoes", "--accelerator=toaster"], "'toaster' cannot be used here; there is cpu"),
        (["evaluate", "tetrominoes", f"--images={10**20}"], "expected a whole number of at most 18 digits"),
        (["train", "--folder=x", f"--train.seed={10**20}"], "train.seed must fit into 64 bits"),
        (["train", "--folder=x", f"--train.light={'[' * 5000}"], "train.light is nested too deep"),
    ],
)
def test_mistakes_of_usage_are_one_line_without_the_usage(capsys, arguments, message):
    text, status = said(capsys, arguments)
    assert message in text and status == 2


def test_the_version_is_said_once(capsys, root):
    with pytest.raises(SystemExit) as error:
        cli.main(["--version"])
    assert not error.value.code
    assert capsys.readouterr().out == f"slotlib {slotlib.__version__}\n"
    assert re.search(r"^version: (.*)$", (root / "CITATION.cff").read_text(), re.MULTILINE)[1] == slotlib.__version__
    assert re.search(r"^## (\S+)", (root / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == slotlib.__version__


def test_the_command_starts_without_what_only_some_of_it_needs():
    code = "import sys; from slotlib import cli\ntry: cli.main(['-h'])\nfinally: print(*sys.modules, file=sys.stderr)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "slotlib evaluate" in process.stdout
    slow = {"matplotlib", "lightning_fabric", "tensorboard", "scipy", "sklearn", "ipywidgets", "h5py", "torch._dynamo"}
    assert slow.isdisjoint(process.stderr.split())
