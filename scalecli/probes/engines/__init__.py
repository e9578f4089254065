"""Engines: where the units of a sweep train. One interface (`engine.py`), one file an engine.

The driver's store is the only state. Whatever the engine, a unit is trained by the same child process
(`process.py`) on the machine that has the device, and its records come back as JSON Lines into an attempt's file.
"""
