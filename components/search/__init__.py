"""The search for a better training config: suggest, tell, choose. Optuna is used here and nowhere else."""
