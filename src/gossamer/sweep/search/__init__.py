"""Which recipes are best, when none is best at everything? Trials that Optuna proposes and engines train."""
