"""Files, processes, threads and versions."""
