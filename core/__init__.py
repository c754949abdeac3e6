"""What every part of Thumbtune may know: settings, errors, records and file formats.

Imports no torch, no discord and no SQL, so that any process can load it at once.
"""
