"""Sets and reads the state of a process: its devices, its signals, its terminal, the cluster that it is of.

Nothing is imported here, so that what needs no extra, such as `d3pm --help`, asks for none.
"""
