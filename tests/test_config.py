"""params.yaml, conf/ and dvc.yaml agree; what does not fit is refused in one line."""

import contextlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hardsoft.config import machine
from hardsoft.config.compose import compose, configuration
from hardsoft.config.load import load_config
from hardsoft.core.errors import InputError
from hardsoft.core.paths import NO_LABELS, NO_READOUT
from tests.support.repositories import ROOT, Repository, whatever_holds


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_params_are_what_the_defaults_compose_to() -> None:
    assert Path("params.yaml").read_text(encoding="utf-8") == compose([])


def test_dvc_composes_the_same_bytes(fresh: Repository) -> None:
    fresh.done("dvc", "exp", "run", "--queue", "-S", "prompt=label_only", "-S", "quantization=fp4")
    composed = fresh.done("git", "show", "refs/exps/celery/stash:params.yaml").output
    fresh.done("python", "-m", "hardsoft.config", "prompt=label_only", "quantization=fp4")
    assert fresh.read("params.yaml") == composed


@pytest.mark.parametrize("group", ["data", "model", "quantization", "prompt", "engine", "sample", "judge"])
def test_every_option_composes_and_validates(group: str) -> None:
    options = sorted(Path("conf", group).glob("*.yaml"))
    assert options
    for option in options:
        compose([f"{group}={option.stem}"])


def test_the_studys_setting(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(compose(["+experiment=study"]), encoding="utf-8")
    config = load_config(str(path))
    assert config.model.name == "meta-llama/Llama-3.1-8B-Instruct"
    assert re.fullmatch("[0-9a-f]{40}", config.model.revision or "")
    assert (config.quantization.method, config.quantization.double_quant, config.model.dtype) == ("nf4", True, "float16")
    assert config.engine.kind == "local"
    assert (config.engine.batch_size, config.prompt.max_new_tokens) == (64, 150)
    assert config.sample.kind == "per_label"
    assert (config.sample.per_label, config.sample.seed) == (50, 42)
    assert config.prompt.template == "conf/prompt/study.jinja"
    assert config.judge.kind == "llm"
    assert config.judge.model == "o3"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prompt=nope", "Could not find 'prompt/nope' Available options in 'prompt': codebook cot"),
        ("engine.speed=3", "engine.speed"),
        ("+engine.speed=3", "engine.speed: unknown key"),
        ("engine.batch_size=0", "engine.batch_size: Input should be greater than 0 (it is 0)"),
        ("engine.batch_size=many", "engine.batch_size: Input should be a valid integer"),
        ("sample.seed='???'", "sample.seed: needs a value"),
        ("quantization.method=nf3", "quantization.method: Input should be 'none', 'nf4', 'fp4' or 'int8'"),
        ("data.path=/tmp/mine.csv", "data.path: lies outside the repository"),
        ("quantization.dequantize=true", "quantization: dequantize is for nf4 and fp4; with none it must be false"),
        (
            "model.dep=conf/model/tiny.yaml",
            "model.name and model.dep are the same path; set model.dep=models/smollm2/checkpoint",
        ),
        ("sample.baseline=data/reference/labels.csv", "sample: baseline is for sample=frozen"),
        ("model.dep=../mine", "model.dep: leaves the repository by a relative path"),
        ("engine.processes=0", "engine.processes: Input should be greater than 0"),
        ("data.path=../mine.csv", "copy the file under data/raw/ and `dvc add` it"),
        ("prompt", "Error parsing override 'prompt'"),
    ],
)
def test_what_does_not_fit_is_named(override: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        compose([override])
    assert message in " ".join(str(error.value).split())


@pytest.mark.parametrize("overrides", [["model.name=models/mine/"], ["model.name=/x/y"], ["model.name=/x/y", "model.dep=/x/y/"]])
def test_a_checkpoint_folder_of_ones_own_may_lie_anywhere(overrides: list[str]) -> None:
    assert (
        configuration(*overrides).model.dep == configuration(*overrides).model.name == overrides[0].partition("=")[2].rstrip("/")
    )


def test_a_read_out_and_a_baseline_are_a_key_each() -> None:
    assert configuration("model.readout=models/readouts/x").model.readout == "models/readouts/x"
    assert configuration("model=tiny").model.readout == NO_READOUT
    frozen = configuration("sample=frozen", "sample.baseline=data/reference/labels.csv").sample
    assert frozen.baseline == frozen.dep == "data/reference/labels.csv"
    assert configuration("sample=frozen").sample.dep == configuration().sample.dep == NO_LABELS


def test_parameters_and_options_of_before_still_do(fresh: Repository) -> None:
    """As DVC reads them, before any of our code: those of the version that had a second key for each dependency."""
    fresh.write("params.yaml", (ROOT / "tests/params_of_the_first_cut.yaml").read_text(encoding="utf-8"))
    assert "model.readout_dep" in fresh.run("python", "-m", "hardsoft.config", "--check").output
    assert "sample:" in fresh.done("dvc", "status").output
    own = fresh.read("conf/model/tiny.yaml").replace("${.name}", "models/tiny/checkpoint")
    fresh.write("conf/model/mine.yaml", f"{own}readout_dep: ${{.dep}}\n")
    fresh.write("conf/sample/mine.yaml", fresh.read("conf/sample/per_label.yaml") + "dep: data/processed/labels.csv\n")
    fresh.done("dvc", "exp", "run", "-S", "model=mine", "-S", "sample=mine")
    assert "readout_dep: models/tiny/checkpoint" in fresh.read("params.yaml")
    run = fresh.done("python", "-m", "hardsoft.config", "model=mine", "sample=mine")
    assert run.output == "note: params.yaml: model.readout_dep is no more\n"
    assert fresh.done("dvc", "repro").ran == ["classify", "report"], "they track the whole section"


def test_null_where_dvc_needs_a_file_is_named_with_its_option(fresh: Repository) -> None:
    own = fresh.read("conf/model/tiny.yaml")
    fresh.write("conf/model/mine.yaml", f"{own}readout: null\n")
    fresh.write(
        "conf/sample/mine.yaml", fresh.read("conf/sample/frozen.yaml").replace(f"baseline: {NO_LABELS}", "baseline: null")
    )
    check = fresh.run("python", "-m", "hardsoft.config", "--check")
    assert (check.code, check.output) == (
        1,
        f"config: conf/model/mine.yaml: readout is null; write {NO_READOUT}, or leave it out; "
        f"conf/sample/mine.yaml: baseline is null; write {NO_LABELS}, or leave it out\n",
    )
    run = fresh.done("python", "-m", "hardsoft.config", "model=mine", "sample=mine")
    assert run.output.count("\n") == 1
    assert f"model.readout: null is {NO_READOUT} now; sample.baseline: null is {NO_LABELS} now; sample.dep: null is" in run.output
    fresh.done("dvc", "status")
    fresh.write("conf/model/mine.yaml", f"{own}readout: {NO_READOUT}\n")
    fresh.done("dvc", "exp", "run", "-S", "model=mine")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\n  candidate", "\n\tcandidate", r"conf/data/mine\.yaml: line 4: not valid YAML: found character '\\t'"),
        ('separator: ";"', "separator: ,", r"conf/data/mine\.yaml: (line 2: not valid YAML|data\.separator)"),
        ("skill_type:", "path: x\nskill_type:", r"conf/data/mine\.yaml: line 7: not valid YAML: .*duplicate key path"),
        ("skill_type: ", "skill_type:", r"conf/data/mine\.yaml: line 7: not valid YAML"),
        ("Professional_Skill", "!!int x", r"conf/data/mine\.yaml: .*not valid YAML"),
        ("Professional_Skill", "Fähigkeit", r"conf/data/mine\.yaml: line 7 is not UTF-8 \(byte 0xe4\)"),
    ],
)
def test_an_option_file_that_cannot_be_read_is_named_with_the_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    shutil.copytree("conf", tmp_path / "conf")
    text = Path("conf/data/sample.yaml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "conf/data/mine.yaml").write_bytes(text.replace(old, new).encode("cp1252"))
    with contextlib.chdir(tmp_path), pytest.raises(InputError, match=message):
        compose(["data=mine"])


def test_an_option_file_that_cannot_be_read_is_one_line_and_exit_code_1(fresh: Repository) -> None:
    (fresh.path / "conf/data/mine.yaml").write_bytes(fresh.read("conf/data/sample.yaml").replace(": ", ":\t[", 1).encode())
    run = fresh.run("python", "-m", "hardsoft.config", "data=mine")
    assert (run.code, run.output.count("\n")) == (1, 1), run.output
    assert run.output.startswith("config: conf/data/mine.yaml: "), run.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- data\n- model\n", "expected keys and values, found something else"),
        ("data: x: y\n", "line 1: not valid YAML"),
        ("data:\n\tpath: x\n", "line 2: not valid YAML"),
        ("3\n", "not valid YAML|expected keys"),
        ("data: \x1b\n", "line 1: not valid YAML"),
        ("data: ${nothing}\n", "nothing"),
    ],
)
def test_a_params_file_that_cannot_be_read_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as error, contextlib.chdir(tmp_path):
        load_config()
    assert str(error.value).startswith("params.yaml: ")


@pytest.mark.parametrize(
    ("overrides", "values"),
    [
        (["engine=server"], {"engine.kind": "server", "prompt.max_new_tokens": 150}),
        (["prompt=cot"], {"prompt.max_new_tokens": 100, "prompt.template": "conf/prompt/cot.jinja", "engine.device": "cuda"}),
        (["quantization=none"], {"quantization.method": "none", "quantization.double_quant": False}),
        (["model=tiny"], {"model.dtype": "float32", "engine.device": "cuda"}),
        (["judge=reference", "engine=local"], {"judge.kind": "reference", "engine.device": "auto"}),
    ],
)
def test_each_option_of_the_studys_setting_can_be_replaced(overrides: list[str], values: dict[str, object]) -> None:
    composed = OmegaConf.create(compose(["+experiment=study", *overrides]))
    assert {key: OmegaConf.select(composed, key) for key in values} == values


def test_a_clone_that_converts_line_ends_has_the_same_bytes(template: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", "-c", "core.autocrlf=true", template, tmp_path / "clone"], check=True)
    names = subprocess.run(["git", "ls-files", "-z"], cwd=template, capture_output=True, check=True).stdout.decode().split("\0")
    assert all((tmp_path / "clone" / name).read_bytes() == (template / name).read_bytes() for name in names if name)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match=r"engine\.base_url: holds a user name or password") as error:
        compose(["engine=server", "engine.base_url=http://me:planted@localhost/v1"])
    assert "planted" not in str(error.value)


def test_a_servers_address() -> None:
    with pytest.raises(InputError, match=r"engine\.base_url: must begin with http:// or https:// \(it is 'localhost:8000'\)"):
        compose(["engine=server", "engine.base_url=localhost:8000"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["engine.workers=[4,2]"], r"engine: workers must be a number, auto, or \[fewest, most\]"),
        (["engine.workers=[2]"], r"engine: workers must be a number, auto, or \[fewest, most\]"),
        (["engine.address='ray://host:10001'"], r"engine: address must be auto, host:port or null \(it is 'ray://host:10001'\)"),
        (["engine.num_cpus=0"], r"engine\.num_cpus: "),
        (["engine.num_gpus=1.5"], r"engine: num_gpus must be a share of one GPU, or a whole number \(it is 1\.5\)"),
        (["engine.num_gpus=1"], r"engine: with num_gpus, set batch_size to a number"),
        (
            ["engine.num_gpus=0.5", "engine.batch_size=64", "quantization=nf4"],
            r"with engine\.num_gpus, set quantization\.dequantize",
        ),
    ],
)
def test_what_ray_cannot_do_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        compose(["engine=ray", *overrides])
    assert "\n" not in str(error.value)


def test_check_names_the_keys_that_drifted(fresh: Repository) -> None:
    assert fresh.done("python", "-m", "hardsoft.config", "--check").output == ""
    fresh.write(
        "params.yaml", fresh.read("params.yaml").replace("seed: 42", "seed: 43").replace("batch_size: auto", "batch_size: 8")
    )
    run = fresh.run("python", "-m", "hardsoft.config", "--check")
    assert run.code == 1
    assert "engine.batch_size, sample.seed" in run.output


SECRETS = {"OPENAI_API_KEY": "planted-key-of-openai-0001", "HF_TOKEN": "planted-token-of-the-hub-0002"}


def test_no_secret_reaches_a_file_or_git(repository: Repository) -> None:
    """An experiment with keys in the environment leaves none of them; an option that reads the environment would."""
    run = repository.run("dvc", "exp", "run", "-n", "kept", "-S", "prompt=label_only", environment=SECRETS)
    assert run.code == 0, run.output
    repository.run("dvc", "exp", "run", "--queue", "-S", "+experiment=study", environment=SECRETS)
    assert whatever_holds(repository, SECRETS.values()) == []
    repository.write("conf/sample/leak.yaml", "per_label: 2\nseed: 1\nnote: ${oc.env:OPENAI_API_KEY}\n")
    repository.run("dvc", "exp", "run", "--queue", "-S", "sample=leak", environment=SECRETS)
    assert "git's objects" in whatever_holds(repository, SECRETS.values())


@pytest.mark.parametrize("option", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda path: path.stem)
def test_no_option_reads_the_environment(option: Path) -> None:
    text = option.read_text(encoding="utf-8")
    assert "oc.env" not in text
    assert ("hydra:" in text) == (option.name == "sweep.yaml")  # a node that only a sweep may have


@pytest.mark.external
@pytest.mark.parametrize("option", sorted((ROOT / "conf/model").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_pinned_commit_of_a_hub_model_is_there(option: Path) -> None:
    from huggingface_hub import HfApi

    model = OmegaConf.load(option)
    if model.source == "hub":
        assert HfApi().model_info(model.name, revision=model.revision).sha == model.revision


@pytest.mark.parametrize(
    ("overrides", "gigabytes", "rows"),
    [
        (["model=tiny"], None, 64),
        (["model=tiny"], 8, 256),
        (["model=llama_3_1_8b"], 24, 64),
        (["model=llama_3_1_8b", "quantization=nf4"], 12, 64),
        (["model=llama_3_1_8b", "quantization=nf4"], 80, 256),
        (["model=llama_3_1_8b"], 18, 16),
        (["model=llama_3_1_8b", "engine.batch_size=7"], 80, 7),
    ],
)
def test_a_batch_has_as_many_rows_as_the_card_has_room_for(
    monkeypatch: pytest.MonkeyPatch, overrides: list[str], gigabytes: int | None, rows: int
) -> None:
    monkeypatch.setattr(machine, "total_memory", lambda name: (gigabytes or 0) * 10**9)
    config = configuration(*overrides)
    assert machine.machine_on(config, "cuda" if gigabytes else "cpu").rows_at_once == rows
