"""The JSON of measurements as types, for the code that writes and reads it.

A class with total=False holds keys that some files lack: those of other kinds of runs, and those
that earlier versions did not write.
"""
