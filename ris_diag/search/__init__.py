"""The search for hyper-parameters behind the gate. Optuna is imported when a search runs."""
