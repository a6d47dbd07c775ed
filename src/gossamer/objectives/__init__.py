"""Which loss makes a network robust? One file an objective: craft the inputs, then the loss."""
