"""A causal LM in this process: loading, tokens, the decode loop over a shared prefix, label scoring, plain generation."""
