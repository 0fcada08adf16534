"""The node's database: one schema in `tables`, SQLite or PostgreSQL behind one engine.

Rooms above keep their own queries; what a table means is said here, once.
"""

from carina.database.ahead import draw_in, is_due, is_resting
from carina.database.engine import DatabaseAway, database_now, is_away, look_at_tables, open_database, read_only
from carina.database.outage import (
    DISK_FULL,
    FOLDER_AWAY,
    NO_DATABASE,
    OTHER_DATABASE,
    FolderAway,
    Outages,
    damage_of,
    outage_of,
)
from carina.database.own_database import hold_to_identity
from carina.database.own_folder import IDENTITY_FILE, OwnFolder, database_identity, identity_in, is_there
from carina.database.project_scope import EVERY_PROJECT, each_project, seeing
from carina.database.tables import (
    ACCOUNT,
    ARRIVAL,
    AUDIT,
    DELIVERY,
    EARLIER_QUESTION,
    IDENTITY,
    INSTANCE,
    JOB,
    LONGEST_CODE,
    MEMBER,
    NOTICE,
    OWED_REPORT,
    PRIOR,
    PRIOR_SERIES,
    PROJECT,
    REMOVAL,
    SCHEMA,
    SESSION,
    TOKEN,
    WATCHED,
    PriorState,
)
from carina.database.upgrade import check_version, upgrade_schema
from carina.database.version import DataVersion, OfVersion

__all__ = [
    "ACCOUNT",
    "ARRIVAL",
    "AUDIT",
    "DELIVERY",
    "DISK_FULL",
    "EARLIER_QUESTION",
    "EVERY_PROJECT",
    "FOLDER_AWAY",
    "IDENTITY",
    "IDENTITY_FILE",
    "INSTANCE",
    "JOB",
    "LONGEST_CODE",
    "MEMBER",
    "NOTICE",
    "NO_DATABASE",
    "OTHER_DATABASE",
    "OWED_REPORT",
    "PRIOR",
    "PRIOR_SERIES",
    "PROJECT",
    "REMOVAL",
    "SCHEMA",
    "SESSION",
    "TOKEN",
    "WATCHED",
    "DataVersion",
    "DatabaseAway",
    "FolderAway",
    "OfVersion",
    "Outages",
    "OwnFolder",
    "PriorState",
    "check_version",
    "damage_of",
    "database_identity",
    "database_now",
    "draw_in",
    "each_project",
    "hold_to_identity",
    "identity_in",
    "is_away",
    "is_due",
    "is_resting",
    "is_there",
    "look_at_tables",
    "open_database",
    "outage_of",
    "read_only",
    "seeing",
    "upgrade_schema",
]
