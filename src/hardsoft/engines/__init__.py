"""Who completes chats: transformers here or on a Ray cluster, or a server; knows neither DVC nor Hydra nor the file layout."""
