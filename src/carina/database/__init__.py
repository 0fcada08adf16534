"""The node's database: one schema in `tables`, SQLite or PostgreSQL behind one engine.

Rooms above keep their own queries; what a table means is said here, once.
"""

from carina.database.engine import open_database
from carina.database.tables import ARRIVAL, AUDIT, DELIVERY, INSTANCE, JOB, SCHEMA

__all__ = ["ARRIVAL", "AUDIT", "DELIVERY", "INSTANCE", "JOB", "SCHEMA", "open_database"]
