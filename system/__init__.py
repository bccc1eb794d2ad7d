"""The machine: errors, files, locks, signals, devices, processes."""
