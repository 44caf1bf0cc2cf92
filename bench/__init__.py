"""Benchmarks: the published encoders as padded torch modules, suites for pytest-benchmark, and a roofline report."""
