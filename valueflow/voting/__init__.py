"""Votes of a panel: the decision rule, the descent through a theory, agreement of the voters, the human queue."""
