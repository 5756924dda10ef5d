"""The main job as plain functions: resolve a config, train it, evaluate it, compare, report."""
