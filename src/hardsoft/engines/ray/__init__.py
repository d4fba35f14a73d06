"""Workers on a Ray cluster, each with the local engine."""
