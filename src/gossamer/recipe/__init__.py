"""Recipes: one validated config for a whole run, what it builds, and the way back from a run folder."""
