"""From a skill to a chat, and from a completion to a label; knows no model and no server."""
