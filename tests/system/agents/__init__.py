"""The real claude, codex and gemini, against mock servers of their APIs."""
