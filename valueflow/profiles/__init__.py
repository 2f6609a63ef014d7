"""Value profiles: what a person, a group or a model values, from scored texts, and what that predicts."""
