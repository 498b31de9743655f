"""The servers' half of Pilotage: configuration, workload management, directors, service, command line."""

__version__ = "0.1.0"
