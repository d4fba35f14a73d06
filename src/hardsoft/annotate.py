"""`python -m hardsoft.annotate export FILE` writes skills for a person to label, blind; `import FILE` takes the labels in.

The file is a CSV table or, by its ending, a page for the browser, which needs no network and saves such a table. It holds the
sampled skills that have no reference label yet, without the label that the model gave, in an order that tells nothing.
"""

import argparse
import csv
import hashlib
import re
from collections.abc import Sequence
from html import unescape
from io import StringIO
from pathlib import Path

import polars as pl
from jinja2 import Environment, PackageLoader, select_autoescape

from hardsoft.config.load import load_config
from hardsoft.core import paths
from hardsoft.core.errors import InputError
from hardsoft.core.files import read_text, write_outputs
from hardsoft.core.labels import Label
from hardsoft.core.names import name_key
from hardsoft.core.progress import note
from hardsoft.core.runner import run
from hardsoft.core.tables import parse_csv, read_csv, require_columns
from hardsoft.judging.reference import labels_of, read_reference
from hardsoft.stages import tables

COLUMNS = ("skill", "label", "note")
"""What an export holds."""


def to_label(sample: pl.DataFrame, reference: pl.DataFrame) -> pl.DataFrame:
    """The sampled skills that have no reference label, to be labelled.

    Args:
        sample: with a column skill.
        reference: as `read_reference` returns it.

    Returns:
        Columns skill, label, note, the latter two empty; ordered by a hash of the name.
    """
    unlabelled = sample.select("skill", key=name_key(pl.col("skill"))).join(reference, on="key", how="anti")
    skills = sorted(unlabelled["skill"], key=lambda skill: hashlib.sha256(skill.encode()).digest())
    return pl.DataFrame({"skill": skills}, schema={"skill": pl.String}).with_columns(label=None, note=None)


def page(table: pl.DataFrame, codebook: str) -> str:
    """The same as a page for the browser."""
    environment = Environment(loader=PackageLoader("hardsoft", "."), autoescape=select_autoescape(default=True))
    return environment.get_template("annotate.html").render(
        skills=table["skill"].to_list(), labels=[label.value for label in Label], codebook=codebook
    )


def merge(reference: pl.DataFrame, given: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """What labels add to the reference, and where they differ from it.

    Args:
        reference, given: as `read_reference` returns them.

    Returns:
        Columns skill, label, note of the new ones, sorted by skill; and a line for each conflict.
    """
    both = given.join(reference, on="key", suffix="_known").filter(pl.col("label") != pl.col("label_known")).sort("skill")
    conflicts = [f"{row['skill']}: the reference has {row['label_known']}, the file {row['label']}" for row in both.to_dicts()]
    return given.join(reference, on="key", how="anti").select("skill", "label", "note").sort("skill"), conflicts


def check_free(path: str, codebook: str) -> None:
    """Raise InputError unless a file can be written at this path: there is none, or it is an export without labels."""
    if not Path(path).exists():
        return
    labels = 0
    try:
        if _is_page(path):
            text = read_text(path)
            shown = [unescape(name) for name in re.findall("<legend>(.*?)</legend>", text)]
            blank = text == page(pl.DataFrame({"skill": shown}, schema={"skill": pl.String}), codebook)
        else:
            table = read_csv(path)
            filled = table.select(pl.all().str.strip_chars().replace("", None))
            labels = filled["label"].drop_nulls().len() if "label" in table.columns else 0
            blank = (
                set(table.columns) == set(COLUMNS) and filled.drop("skill").null_count().sum_horizontal()[0] == 2 * table.height
            )
    except (InputError, OSError):
        blank = False
    if not blank:
        told = f" (with {labels} label{'s' * (labels != 1)})" if labels else ""
        raise InputError(f"{path} is there already{told}; {'import it, or ' if labels else ''}name another file")


def export(path: str, reference: str) -> None:
    """Write the skills to label, as a table or a page; never over a file that may hold somebody's work."""
    sample = tables.sample()
    table = to_label(sample, read_reference(reference))
    codebook = read_text(paths.CODEBOOK)
    check_free(path, codebook)
    if table.is_empty():
        raise InputError(
            f"{paths.SAMPLE}: each of its {sample.height} skills has a reference label; draw a larger sample (sample.per_label)"
        )
    write_outputs({path: page(table, codebook) if _is_page(path) else table.write_csv()})
    print(f"{path}: {table.height} skills to label as Hard, Soft or Unknown by {paths.CODEBOOK}; then `annotate import` it")


def extended(text: str, new: pl.DataFrame, reference: str) -> str:
    """The text of the reference with new labels below, in its own columns and line ends.

    Args:
        text: of the reference, a header at least.
        new: as `merge` returns it.
        reference: its path, for messages.

    Raises:
        InputError: the result could not be read as a reference.
    """
    columns = parse_csv(text.removeprefix("\ufeff"), reference).columns
    found = re.search(r"\r\n|\r|\n", text)
    end = found[0] if found else "\n"
    if "note" not in columns and (left_out := new["note"].drop_nulls().len()):
        note(f"{reference} has no column 'note'; {left_out} notes are left out")
    rows = new.select(pl.col(name) if name in new.columns else pl.lit(None).alias(name) for name in columns).rows()
    result = text.rstrip("\r\n") + end + "".join(_line(row) + end for row in rows)
    labels_of(parse_csv(result.removeprefix("\ufeff"), reference).with_row_index("line", offset=2), reference)
    return result


def import_labels(path: str, reference: str) -> None:
    """Add a file's labels to the reference; what cannot be meant is refused before anything is written."""
    if reference == paths.NO_LABELS:
        raise InputError(
            f"data.reference is {paths.NO_LABELS}, which stays empty; copy it to data/reference/mine.csv, say, and name that"
        )
    table = read_csv(path)
    require_columns(table, path, ["skill", "label"], "expected skill,label,note, as `annotate export` writes it")
    labelled = table.with_row_index("line", offset=2).drop_nulls("label")
    known = Path(reference).exists()
    new, conflicts = merge(read_reference(reference) if known else labels_of(labelled.clear(), path), labels_of(labelled, path))
    if not new.is_empty():
        text = Path(reference).read_bytes().decode() if known else f"{','.join(COLUMNS)}\n"
        write_outputs({reference: extended(text, new, reference)})
    print(f"{reference}: {new.height} labels added, {table.height - labelled.height} skills left unlabelled")
    for conflict in conflicts:
        print(f"conflict, not changed: {conflict}")
    if conflicts:
        raise InputError(f"{path}: {len(conflicts)} labels differ from {reference}; change one side of each by hand")


def _line(row: Sequence[str | None]) -> str:
    """A row as CSV, without a line end; fields with any kind of line end are quoted."""
    line = StringIO(newline="")
    csv.writer(line, lineterminator="\r\n").writerow(row)
    return line.getvalue().removesuffix("\r\n")


def _is_page(path: str) -> bool:
    return path.lower().endswith((".html", ".htm"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hardsoft.annotate", description="Label sampled skills by hand.")
    parser.add_argument("action", choices=["export", "import"])
    parser.add_argument("file", help="a .csv table, or for export an .html page too")
    arguments = parser.parse_args()
    reference = load_config().data.reference
    (export if arguments.action == "export" else import_labels)(arguments.file, reference)


if __name__ == "__main__":
    run("annotate", main)
