"""Damaged and hostile input for every reader: `python -m tests.fuzz --reader NAME --inputs N --seed S`.

Each input is mutated from a valid seed. A reader may take it or refuse it with a PrnError whose text can be printed; any
other exception is foreign, and a fault. Inputs must not cost more than two seconds of the processor either.
"""
