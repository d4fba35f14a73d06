"""What everyone may import: errors, labels, chats, names, files, tables, read-outs, secrets, progress, and how a command ends.

Imports nothing of ours.
"""
