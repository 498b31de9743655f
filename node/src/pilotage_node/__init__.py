"""The node's half of Pilotage: what runs on a worker node. Standard library only, Python 3.6 and newer."""

__version__ = "0.1.0"
