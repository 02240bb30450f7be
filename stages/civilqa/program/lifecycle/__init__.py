"""How a program starts and ends: signals, locks, faults of the machine, safe output. A reader may skip it."""
