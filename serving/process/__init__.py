"""What the process has of its machine: signals, ports, memory, cores, and files that change."""
