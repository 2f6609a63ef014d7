"""One file per job: the command, the schema, the composition."""
