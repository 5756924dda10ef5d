"""The zoo: model organisms, each a generator of training rows and an Inspect task that measures it.

The generators are light; a task lives in a file of its own (``<organism>_task.py``), which imports Inspect.
"""
