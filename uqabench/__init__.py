"""uqabench: how well does a user embedding tell an LLM who the user is, and at what cost?"""

__version__ = "0.1.0"
