"""Configuration: the schema of every closed group, the checks on values, and the resolved spec. No torch."""
