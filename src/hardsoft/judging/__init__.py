"""Who gives verdicts on sampled skills, blind to their labels; knows neither DVC nor Hydra nor the file layout."""
