"""Adapters of the model's port: one for each wire format that providers of models speak."""
