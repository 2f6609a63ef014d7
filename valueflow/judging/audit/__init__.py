"""The audit of a judge: rated texts, the exam and its measures, and rating compared with ranking."""
