"""The pipeline, one file a DVC stage, in the order in which data flows:

extract   a CV-skills file           -> its distinct skills
classify  skills                     -> a completion for each, by a causal LM
clean     completions                -> labels, and a log that a person can read
sample    labels                     -> the skills that the judge will check
judge     sampled skills             -> verdicts, blind to the labels
metrics   labels, sample, verdicts   -> accuracy with its intervals
report    labels, metrics            -> a page that a person can read

Only these read and write the pipeline's files; nothing imports them.
"""
