"""Pipeline definitions, the graph check, runs and their manifest; knows no medicine.

What an operator of another package needs stands here.
"""

from carina.pipeline.operator import Context, Operator, Setting
from carina.pipeline.table import OperatorTable
from carina.pipeline.values import Json, Table

__all__ = ["Context", "Json", "Operator", "OperatorTable", "Setting", "Table"]
