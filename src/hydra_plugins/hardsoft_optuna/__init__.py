"""Hydra finds `hydra/sweeper=optuna` here: every package of `hydra_plugins` is looked at when Hydra starts."""
