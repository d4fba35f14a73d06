"""OpenAI-compatible servers: the client, what replies say, batches; knows neither skills nor labels."""
