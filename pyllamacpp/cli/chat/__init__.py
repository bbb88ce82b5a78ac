"""The chat program: conversation (no terminal), store, commands, screen, keyboard, and the loop."""
