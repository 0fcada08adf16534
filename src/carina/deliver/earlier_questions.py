"""Transactions under which a peer was asked for storage commitment before the newest one, since the object was sent.

An archive may commit itself after hours, and report on each question that it was asked until then. A delivery's row has
the newest transaction; those before it are here until it is clear what became of the object, or it is sent again.
In a transaction of the database they are changed before the delivery's row is, so that no two wait for each other.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, delete, insert, literal, select

from carina.database import DELIVERY, EARLIER_QUESTION

MOST_REMEMBERED = 50
"""Earlier transactions of a delivery: about two days of questions."""

_QUESTION = EARLIER_QUESTION.c


def remember_earlier(connection: Connection, delivery_id: int, newest: str) -> None:
    """A delivery is asked about under ``newest``: the transaction that it has in its row is an earlier one then."""
    before = DELIVERY.c.transaction_uid
    wanted = select(literal(delivery_id), before).where(DELIVERY.c.id == delivery_id, before.not_in(("", newest)))
    connection.execute(insert(EARLIER_QUESTION).from_select(["delivery_id", "transaction_uid"], wanted))
    its = _QUESTION.delivery_id == delivery_id
    last = select(_QUESTION.id).where(its).order_by(_QUESTION.id.desc()).limit(1).offset(MOST_REMEMBERED)
    connection.execute(delete(EARLIER_QUESTION).where(its, _QUESTION.id <= last.scalar_subquery()))


def forget_earlier(connection: Connection, *deliveries: ColumnElement[bool]) -> None:
    """No report under an earlier transaction says anything of these deliveries any more."""
    ids = select(DELIVERY.c.id).where(*deliveries)
    connection.execute(delete(EARLIER_QUESTION).where(_QUESTION.delivery_id.in_(ids)))


def take_answer(connection: Connection, delivery_id: int, transaction_uid: str) -> bool:
    """An earlier transaction is answered, of which the first answer counts; False where it was, or is forgotten."""
    this = (_QUESTION.delivery_id == delivery_id) & (_QUESTION.transaction_uid == transaction_uid)
    return bool(connection.execute(delete(EARLIER_QUESTION).where(this)).rowcount)


def was_asked_under(transaction_uid: str) -> ColumnElement[bool]:
    """Whether a delivery was asked about under an earlier transaction."""
    return DELIVERY.c.id.in_(select(_QUESTION.delivery_id).where(_QUESTION.transaction_uid == transaction_uid))
