"""What a run leaves for people: its name, record, table, plots, provenance and HTML page."""
