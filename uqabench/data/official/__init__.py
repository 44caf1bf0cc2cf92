"""The published UQABench files, both ways: four Arrow files into a store with its questions, and a store into them."""

from uqabench.data.official.given import GIVEN_FILES, GivenQuestions
from uqabench.data.official.source import Official
from uqabench.data.official.write import write_official

__all__ = ["GIVEN_FILES", "GivenQuestions", "Official", "write_official"]
