"""Nouns become decisions: which steps there are, what may start, and what each one sends."""
