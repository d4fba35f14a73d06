"""Who completes chats: transformers here, or a server; knows neither DVC nor Hydra nor the file layout."""
