"""What everyone may import: errors, labels, chats, names, files, progress. Imports nothing of ours."""
