"""Configs: YAML with positions, validated against constructor signatures, into the parts of an experiment."""
