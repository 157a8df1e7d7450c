"""A program as a graph: what one entry reaches and what that needs, so that nothing else is evaluated.

- `graph.py`, `nodes.py`, `operations.py`: the graph, its nodes, and the operations that they are made by
- `places.py`: sets of entries; `slices.py`: one entry judged on its dependences
"""
