"""Choose the names that the adapter's training never sees, and write them to models/smollm2/validation.csv.

A tenth of every family. Names that share their head word, the last one, stay together on one side, so that none of them is
told by another; groups are taken in the order of a seeded hash for as long as no family gets more than its tenth.
"""

import csv
import hashlib
from collections import Counter, defaultdict
from pathlib import Path

from hardsoft.readout import head_word

LEXICON = Path("models/lexicon/lexicon.csv")
VALIDATION = Path("models/smollm2/validation.csv")
SEED = 7
SHARE = 0.1

Entry = dict[str, str]


def read_entries(path: Path) -> list[Entry]:
    """Rows of a CSV file with the columns skill, label and family."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def choose(entries: list[Entry]) -> list[Entry]:
    """The names to keep out of the training."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[head_word(entry["skill"])].append(entry)
    room = {family: round(count * SHARE) for family, count in Counter(entry["family"] for entry in entries).items()}
    chosen: list[Entry] = []
    for head in sorted(groups, key=_place):
        wanted = Counter(entry["family"] for entry in groups[head])
        if all(room[family] >= count for family, count in wanted.items()):
            chosen += groups[head]
            for family, count in wanted.items():
                room[family] -= count
    return sorted(chosen, key=lambda entry: (entry["skill"], entry["label"], entry["family"]))


def main() -> None:
    entries = read_entries(LEXICON)
    chosen = choose(entries)
    with open(VALIDATION, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["skill", "label", "family"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(chosen)
    for key in ("label", "family"):
        of_all = Counter(entry[key] for entry in entries)
        kept_out = Counter(entry[key] for entry in chosen)
        shares = {name: f"{kept_out[name]}/{count}" for name, count in sorted(of_all.items())}
        print(f"{key}: {', '.join(f'{name} {share}' for name, share in shares.items())}")


def _place(head: str) -> str:
    return hashlib.sha256(f"{SEED} {head}".encode()).hexdigest()


if __name__ == "__main__":
    main()
