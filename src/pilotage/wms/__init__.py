"""Workload management as pure functions over plain data: life cycles, requirements, matching, fair share, retries."""
