"""What params.yaml may hold, how it is composed from conf/, and what a run needs before it begins."""
