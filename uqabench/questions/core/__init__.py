"""The compiled part of question generation: one candidate question at a time, from explicit random states."""
