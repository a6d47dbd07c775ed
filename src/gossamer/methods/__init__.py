"""Published methods, one file each: the phases that make a network robust and sparse."""
