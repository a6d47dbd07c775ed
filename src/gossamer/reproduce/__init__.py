"""Tables and figures that were published, rebuilt: what the papers print, and beside it what our runs reached."""
