"""Which runs does a grid hold, what do they share, and who has trained it?"""
