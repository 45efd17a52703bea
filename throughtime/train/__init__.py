"""Training into a run folder. Import from its modules: `fit` brings Lightning, which takes seconds."""
