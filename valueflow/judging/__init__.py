"""What a judge is, how replies are read, and the judges that need no cluster."""
