"""What a file is that is no CSV table, by how it begins; knows no table and reads no file."""

import re

STARTS = {
    b"\x1f\x8b": "a gzip file; unpack it",
    b"PK\x03\x04": "a zip or Excel file; unpack it, or export it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel file of the old kind; export it as CSV",
    b"BZh": "a bzip2 file; unpack it",
    b"\xfd7zXZ": "an xz file; unpack it",
    b"7z\xbc\xaf": "a 7z file; unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd file; unpack it",
    b"PAR1": "a Parquet file; export it as CSV",
    b"ARROW1": "an Arrow file; export it as CSV",
    b"SQLite format 3": "an SQLite database; export the table as CSV",
    b"%PDF": "a PDF; export the table as CSV",
    b"{\\rtf": "an RTF text; export the table as CSV",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; run `git lfs pull`",
}
"""How files begin that are often taken for CSV files."""
PATTERNS = {
    r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype html|html|head|body)\b": "a web page; download the file itself, signed in",
    r"<(\?xml\b|!doctype\b|!--|[a-z][\w:.-]*(\s[^>]*)?/?>(\s*<|.*?</))": "XML; export the table as CSV",
    r"\{\s*(\"[^\"\n]*\"\s*:|\}\s*$)|\[\s*([\[{\"]|-?\d|(true|false|null)\b|\]\s*$)": "JSON; export the table as CSV",
    r"(?=.*?^outs:\s*$)(outs|deps|wdir|md5|frozen|desc|meta):": "a .dvc file's text; name the file beside it, run `dvc pull`",
}
"""The same of text, as regular expressions for the beginning without blanks before it, in whatever case."""
HEAD = 4000
"""Bytes that are looked at."""


def other_kind(content: bytes) -> str | None:
    """What a file is and what to do with it, if its bytes are none of a CSV table."""
    for start, kind in STARTS.items():
        if content.startswith(start):
            return kind
    head = content[:HEAD].removeprefix(b"\xef\xbb\xbf").decode("latin-1").lstrip()
    for pattern, kind in PATTERNS.items():
        if re.match(pattern, head, re.IGNORECASE | re.MULTILINE | re.DOTALL):
            return kind
    return None
