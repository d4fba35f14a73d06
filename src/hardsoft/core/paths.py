"""Where the pipeline's files lie, from the repository's root. Knows neither what they hold nor what params.yaml names."""

CODEBOOK = "docs/codebook.md"
NO_REFERENCE = "data/reference/none.csv"
"""Reference labels of which there are none."""

SKILLS = "data/interim/skills.csv"
COMPLETIONS = "data/interim/completions.jsonl"
PROBABILITIES = "data/interim/probabilities.csv"

LABELS = "data/processed/labels.csv"
STUDY_LABELS = "data/processed/hard_soft_skills.csv"
"""The labels in the format of the published study."""
COMPLETION_LOG = "data/processed/CoT.log"
SAMPLE = "data/processed/sample.csv"
VERDICTS = "data/processed/verdicts.jsonl"
REPORT = "data/processed/report.html"

INPUT_METRICS = "metrics/input.json"
THROUGHPUT_METRICS = "metrics/throughput.json"
LABEL_METRICS = "metrics/labels.json"
JUDGE_METRICS = "metrics/judge.json"
ACCURACY_METRICS = "metrics/accuracy.json"

CONFUSION_PLOT = "metrics/confusion.csv"
COUNTS_PLOT = "metrics/counts.csv"
PRECISION_PLOT = "metrics/precision.csv"
RELIABILITY_PLOT = "metrics/reliability.csv"
RISK_COVERAGE_PLOT = "metrics/risk_coverage.csv"
