"""How a program ends well: signals, locks, faults of the machine, safe output. A reader of the pipeline can skip it."""
