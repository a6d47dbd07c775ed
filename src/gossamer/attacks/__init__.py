"""How are adversarial examples found? One file an attack: a frozen dataclass called as attack(model, x, y)."""
