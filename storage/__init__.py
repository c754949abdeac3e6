"""The only SQL: one database file, its migrations, one store for each noun, and an async face.

Knows no torch and no face. What crosses its border are the frozen records of `core.records`.
"""
