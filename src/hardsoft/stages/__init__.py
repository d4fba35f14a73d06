"""The pipeline, one file a DVC stage, in the order in which data flows:

extract   a CV-skills file           -> its distinct skills
classify  skills                     -> a completion for each, by a causal LM
clean     completions                -> labels, and a log that a person can read
sample    labels                     -> the skills that the judge will check
judge     sampled skills             -> verdicts, blind to the labels
metrics   labels, sample, verdicts   -> accuracy with its intervals
report    all of these               -> a page for people

Only these read and write the pipeline's files, and nothing imports them. `tables` is no stage: it reads what passes between
them.
"""
