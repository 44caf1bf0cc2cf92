"""Operators over packed, ragged sequences: one folder an operator."""
