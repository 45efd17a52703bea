"""Looking inside: what a model computes on its way, and how gradients flow back through it."""
