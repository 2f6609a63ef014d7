"""OpinionQA without leaks: does the profile of a group predict how it answers questions that made no part of the profile."""
