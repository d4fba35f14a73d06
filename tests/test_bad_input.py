"""Broken inputs: one line that names the file, the line or key, and what would be right; nothing else is touched."""

import gzip
import json
import shutil
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hardsoft.config.compose import compose
from hardsoft.config.load import load_config
from hardsoft.config.schema import ModelConfig, QuantizationConfig
from hardsoft.core.errors import InputError
from hardsoft.core.files import write_outputs
from hardsoft.core.paths import NO_READOUT
from hardsoft.core.tables import read_csv
from hardsoft.engines.local.loading import check_checkpoint, load
from hardsoft.judging.reference import read_reference
from hardsoft.stages import classify, extract, judge
from tests.support.repositories import ROOT, Repository

HEADER = "CANDIDATE_ID;Skill;Skill_Type\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder with the shipped params.yaml, which is also the current one."""
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    for name in ("data/raw", "data/interim", "data/processed", "data/reference"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stage"])
    return tmp_path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "data/raw/cv_skills.csv: no such file"),
        (b"", "data/raw/cv_skills.csv: empty; expected a CSV file with a header line"),
        (b"CANDIDATE_ID,Skill,Skill_Type\n1,V-Ray,Professional_Skill\n", "data.separator if ';' is wrong"),
        (
            b"CANDIDATE_ID;Skills;Skill_Type\n1;V-Ray;Professional_Skill\n",
            "no column 'Skill'; its header has 3, the first 'CANDIDATE_ID', 'Skills', 'Skill_Type'; set",
        ),
        (f"{HEADER}1;V-Ray;Professional_Skill\n2;Café;Professional_Skill\n".encode("latin-1"), "line 3 is not UTF-8 (byte 0xe9)"),
        (f"{HEADER}1;V-Ray;Professional_Skill\n".encode("utf-16"), "line 1 is not UTF-8"),
        (
            f"{HEADER}1;Excel;IT_Skill\n".encode(),
            "no skill of type 'Professional_Skill' in 1 rows; column 'Skill_Type' has 1 different",
        ),
        (f"{HEADER}1;  ;Professional_Skill\n".encode(), "no skill of type 'Professional_Skill'"),
        (HEADER.encode(), "no skill of type 'Professional_Skill'"),
        (f"{HEADER}1;a;b;Professional_Skill\n".encode(), "line 2 has more fields than the header"),
        (f'{HEADER}1;V-Ray;Professional_Skill\n2;"Pipes;Professional_Skill\n'.encode(), "line 3 has an unclosed double quote"),
        (f'{HEADER}1;"12\\" pipe laying";Professional_Skill\n2;Tact;Professional_Skill\n'.encode(), "line 2 has a quote inside"),
        (
            f'{HEADER}1;"Agile coach;Professional_Skill\n2;Monitor 19";Professional_Skill\n'.encode(),
            "line 2 begins a quoted field",
        ),
        (f'{HEADER}1;19\\" rack;Professional_Skill\n'.encode(), "line 2 has a backslash before a quote"),
        (f"{HEADER}1;V-Ray;Professional_Skill\n".encode("utf-16-le"), "no text in UTF-8"),
        (
            f'{HEADER}1;"Pipes;Professional_Skill\n2;Tact;Professional_Skill\n3;Tubes";Professional_Skill\n'.encode(),
            "whole rows in it",
        ),
        (f"{HEADER}1;V-Ray;Professional_Skill\n2;Empathy\n3\n".encode(), "line 3 has fewer fields than the header"),
        (
            f'{HEADER}1;"Stakeholder\nEngagement";Professional_Skill\n3;Sales; Retail;Professional_Skill\n'.encode(),
            "line 4 has more",
        ),
        (
            f'{HEADER}1;Empathy;Professional_Skill\n2;"Lean" Manufacturing;Professional_Skill\n'.encode(),
            "line 3 has a quote inside",
        ),
        (gzip.compress(HEADER.encode(), mtime=0), "a gzip file; unpack it"),
        (b"PK\x03\x04rest", "a zip or Excel file; unpack it, or export it as CSV"),
        (b"\xd0\xcf\x11\xe0rest", "an Excel file of the old kind"),
        (f"sep=,\n{HEADER}1;V-Ray;Professional_Skill\n".encode(), "line 1 says 'sep=,', and the separator is ';'"),
        (b"CANDIDATE_ID;Skill;Skill;Skill_Type\n", "1 columns have the name of another"),
    ],
)
def test_an_export_that_cannot_be_used_is_named_and_nothing_is_written(folder: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (folder / "data/raw/cv_skills.csv").write_bytes(content)
    with pytest.raises(InputError) as error:
        extract.main()
    assert "data/raw/cv_skills.csv" in str(error.value)
    assert message in str(error.value)
    assert not (folder / "data/interim/skills.csv").exists()


ROW = "1;Pâtisserie;Professional_Skill\n"


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + HEADER + ROW,
        (HEADER + ROW).replace("\n", "\r\n"),
        (HEADER + ROW).replace("\n", "\r"),
        "sep=;\n" + HEADER + ROW,
        '\ufeff"sep=;"\r\n' + HEADER + ROW,
        HEADER + "\n" + ROW + "\n\n",
        HEADER + ROW.rstrip("\n"),
        HEADER + '1;"Pâtisserie";"Professional_Skill"\n',
        HEADER + '1;"\nPâtisserie";Professional_Skill\n',
    ],
)
def test_what_is_healthy_is_read(folder: Path, content: str) -> None:
    (folder / "data/raw/cv_skills.csv").write_bytes(content.encode())
    extract.main()
    assert (folder / "data/interim/skills.csv").read_text(encoding="utf-8") == "skill,mentions\nPâtisserie,1\n"


def test_quotes_inside_are_read_and_a_separator_may_be_any_character(folder: Path) -> None:
    (folder / "data/raw/cv_skills.csv").write_text(
        f'{HEADER}1;5" Pipes;Professional_Skill\n2;"8"" Pipes";Professional_Skill\n', encoding="utf-8"
    )
    extract.main()
    assert read_csv("data/interim/skills.csv")["skill"].to_list() == ['5" Pipes', '8" Pipes']
    wide = (folder / "data/raw/cv_skills.csv").read_text(encoding="utf-8").replace(";", "¦")
    (folder / "data/raw/cv_skills.csv").write_text(wide, encoding="utf-8")
    params = OmegaConf.load("params.yaml")
    params.data.separator = "¦"
    OmegaConf.save(params, "params.yaml")
    extract.main()
    assert read_csv("data/interim/skills.csv")["skill"].to_list() == ['5" Pipes', '8" Pipes']


def test_every_row_of_an_export_is_accounted_for(folder: Path) -> None:
    rows = ["1;V-Ray;Professional_Skill", "1;v-ray;Professional_Skill", " ;V-Ray;Professional_Skill", "2;;Professional_Skill"]
    rows += ["2; Null ;Professional_Skill", "3;Excel;IT_Skill", "3;Oslo; ", "4;Tact;Profes\u00adsional_Skill"]
    (folder / "data/raw/cv_skills.csv").write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    extract.main()
    assert json.loads(Path("metrics/input.json").read_text(encoding="utf-8")) == {
        "rows": 8,
        "left_out": {"other_type": 1, "no_type": 1, "no_name": 2},
        "mentions": 4,
        "without_candidate": 1,
        "repeated": 1,
        "spellings": 3,
        "skills": 2,
    }


def test_no_message_tells_what_a_file_without_a_header_holds(folder: Path) -> None:
    (folder / "data/raw/cv_skills.csv").write_text(
        "".join(f"{n};Secret Skill {n} " + "x" * 99 + ";T\n" for n in range(9)), encoding="utf-8"
    )
    with pytest.raises(InputError) as error:
        extract.main()
    assert len(str(error.value)) < 300
    assert "Secret" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("name,label\nV-Ray,Hard\n", "no column 'skill'"),
        (
            "skill,label\nV-Ray,Hard\nEmpathy,soft\n",
            "line 3: skill 'Empathy' has the label 'soft'; it must be Hard, Soft or Unknown",
        ),
        ("skill,label\nV-Ray,\n", "line 2: skill 'V-Ray' has the label None"),
        ("skill,label\nSales,Hard\nV-Ray,Hard\nsales ,Soft\n", "has two labels, Hard (line 2) and Soft (line 4); keep one"),
    ],
)
def test_reference_labels_that_cannot_be_used_stop_the_judge(folder: Path, content: str, message: str) -> None:
    path = "data/reference/labels.csv"
    Path(path).write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_reference(path)
    assert path in str(error.value)
    assert message in str(error.value)
    Path("data/processed/sample.csv").write_text("skill,label,weight\nV-Ray,Hard,1.0\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"labels\.csv"):
        judge.main()
    assert not Path("data/processed/verdicts.jsonl").exists()


def test_the_same_label_twice_is_no_conflict(folder: Path) -> None:
    Path("data/reference/labels.csv").write_text("skill,label,note\nSales,Soft,\nSALES,Soft,x\n,,\n", encoding="utf-8")
    assert read_reference("data/reference/labels.csv").select("key", "label").rows() == [("sales", "Soft")]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("engine.batch", 3, "engine.batch: unknown key"),
        ("engine.batch_size", "many", "engine.batch_size: Input should be a valid integer (it is 'many')"),
        ("judge.kind", "dice", "judge: Input tag 'dice'"),
        ("prompt.max_new_tokens", "???", "prompt.max_new_tokens: needs a value"),
        ("data.path", "/data/mine.csv", "lies outside the repository"),
    ],
)
def test_a_value_that_params_cannot_have_is_named_with_its_key(folder: Path, key: str, value: object, message: str) -> None:
    params = OmegaConf.load("params.yaml")
    OmegaConf.update(params, key, value, force_add=True)
    OmegaConf.save(params, "params.yaml")
    with pytest.raises(InputError) as error:
        load_config()
    assert str(error.value).startswith("params.yaml: ")
    assert message in str(error.value)


def test_params_that_are_missing_or_no_yaml(folder: Path) -> None:
    Path("params.yaml").write_text("data: [", encoding="utf-8")
    with pytest.raises(InputError, match=r"params\.yaml: line 1: not valid YAML"):
        load_config()
    Path("params.yaml").unlink()
    with pytest.raises(InputError, match=r"params\.yaml: no such file; write it with `python -m hardsoft.config`"):
        load_config()


def test_a_checkpoint_that_lacks_files(folder: Path) -> None:
    checkpoint = Path("models/tiny/checkpoint")
    shutil.copytree(ROOT / checkpoint, checkpoint)
    check_checkpoint(str(checkpoint))
    for name in ("tokenizer.json", "model.safetensors"):
        (checkpoint / name).unlink()
    Path("data/interim/skills.csv").write_text("skill,mentions\nV-Ray,1\n", encoding="utf-8")
    shutil.copytree(ROOT / "conf", "conf")
    Path("params.yaml").write_text(compose(["model=tiny"]), encoding="utf-8")
    with pytest.raises(InputError) as error:
        classify.main()
    assert "models/tiny/checkpoint: the checkpoint folder lacks tokenizer.json, *.safetensors" in str(error.value)
    assert not Path("data/interim/completions.jsonl").exists()


def test_a_checkpoint_with_broken_weights(folder: Path) -> None:
    checkpoint = Path("models/tiny/checkpoint")
    shutil.copytree(ROOT / checkpoint, checkpoint)
    (checkpoint / "model.safetensors").write_bytes(b"broken")
    model = ModelConfig(
        source="folder",
        name=str(checkpoint),
        revision=None,
        gated=False,
        parameters=1722048,
        chat_template={},
        dtype="float32",
        dep=str(checkpoint),
        readout=NO_READOUT,
    )
    with pytest.raises(InputError, match="models/tiny/checkpoint: cannot be loaded: "):
        load(model, QuantizationConfig(method="none", double_quant=False, dequantize=False), "cpu")


def test_a_stage_that_fails_is_one_line_and_exit_code_1(fresh: Repository) -> None:
    (fresh.path / "data/raw/cv_skills.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    run = fresh.run("python", "-m", "hardsoft.stages.extract")
    assert run.code == 1
    assert run.output.startswith("extract: data/raw/cv_skills.csv: no column")
    assert run.output.count("\n") == 1


def test_outputs_are_written_together_or_not_at_all(folder: Path) -> None:
    old = Path("data/interim/old.csv")
    old.write_text("old", encoding="utf-8")
    with pytest.raises(OSError, match=r"old\.csv"):
        write_outputs({"data/interim/old.csv": "new", "data/interim/old.csv/below": "cannot be written"})
    assert old.read_text(encoding="utf-8") == "old"
