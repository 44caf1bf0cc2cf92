"""The page of a run or an experiment: one HTML file with every question and answer in it, which needs no network."""

from uqabench.report.page.write import FILE_NAME, page_of, write_page

__all__ = ["FILE_NAME", "page_of", "write_page"]
