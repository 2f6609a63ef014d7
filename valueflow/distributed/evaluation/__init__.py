"""Evaluation of responses on Ray: rounds of windows among anchors, saved rankings, official files."""
