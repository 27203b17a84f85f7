"""Where a run is carried out: processes, devices, options, paths, and where progress is shown."""
