"""Tensors only: what attention patterns and activations say."""
