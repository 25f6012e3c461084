"""microturn: recordings of people talking, as the 200 ms micro-turns that interaction models train on.

The rooms, from the ground up: `schemas` and `kernels`; `transforms`; `pipelines` and `trainer`; `notebooks`. README.md has the map.
"""

__version__ = "0.1.0"
