"""Sets and reads the state of a process: its devices, its signals, its terminal, the cluster that it is of.

No module of it is imported here, so that what needs no extra, such as `d3pm --help`, asks for none.
"""
