"""Write data/raw/cv_skills.csv: invented candidates with skills of their occupational area, dirt included.

Run once, from the repository root: python data/synthetic/synthesise.py.
The names were written one by one; only who has which is drawn.
"""

import csv
import random
import unicodedata
from pathlib import Path

CANDIDATES = 620
SEED = 11
FOLDER = Path("data/synthetic")
JOB_AREA = {"vehicles": "transport", "telecom": "software", "food": "hospitality", "environment": "energy"}
PER_CANDIDATE = {"IT_Skill": (0, 4), "Job_title": (1, 3), "Language_Skill": (0, 3), "DRIVERSLIC": (0, 1)}


def read(name: str) -> list[dict[str, str]]:
    with open(FOLDER / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def dirty(value: str, chance: random.Random) -> str:
    """One entry as exports spell it: mostly right."""
    draw = chance.random()
    if draw < 0.02:
        return chance.choice([value.lower(), value.upper(), value.title()])
    if draw < 0.04:
        return chance.choice([f" {value}", f"{value} ", f"{value}\t", value.replace(" ", "  "), value.replace(" ", "\u00a0")])
    if draw < 0.05:
        return unicodedata.normalize("NFD", value)
    return value


def main() -> None:
    chance = random.Random(SEED)
    skills: dict[str, list[str]] = {}
    for row in read("professional_skills.csv"):
        skills.setdefault(row["area"], []).append(row["skill"])
    others = read("other_types.csv")
    general = skills.pop("general")
    areas = sorted(skills)
    for names in (general, *skills.values()):
        chance.shuffle(names)
    # Few names are common and most are rare, as in real exports: weights 1 / (rank + 5).
    weights = {id(names): [1 / (rank + 5) for rank in range(1, len(names) + 1)] for names in (general, *skills.values())}
    unseen = {area: list(names) for area, names in skills.items()}
    unseen_general = list(general)

    rows = []
    for number in range(CANDIDATES):
        candidate = str(100_000 + chance.randrange(9) + 37 * number)
        area = areas[number % len(areas)]
        own = chance.choices(skills[area], weights[id(skills[area])], k=chance.randint(3, 10))
        own += chance.choices(general, weights[id(general)], k=chance.randint(1, 4))
        own += [unseen[area].pop() for _ in range(min(2, len(unseen[area])))] + [
            unseen_general.pop() for _ in range(min(1, len(unseen_general)))
        ]
        entries = [("Professional_Skill", skill) for skill in own]
        for kind, (least, most) in PER_CANDIDATE.items():
            home = JOB_AREA.get(area, area)
            pool = [row["value"] for row in others if row["type"] == kind and row["area"] in (home, "general")]
            entries += [(kind, value) for value in chance.sample(pool, min(len(pool), chance.randint(least, most)))]
        rows += [(candidate, dirty(value, chance), kind) for kind, value in entries]
        if chance.random() < 0.1:
            rows.append((candidate, chance.choice(["", "NULL", "N/A", "   ", "-"]), "Professional_Skill"))
    chance.shuffle(rows)
    with open("data/raw/cv_skills.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=";", lineterminator="\n")
        writer.writerow(["CANDIDATE_ID", "Skill", "Skill_Type"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
