"""The report of runs: one HTML file that works offline. docs/report.md describes it."""

from distppo.report.write import Report, write_report

__all__ = ["Report", "write_report"]
