"""Label the professional skills found in CVs as Hard, Soft or Unknown, as a reproducible DVC experiment."""
