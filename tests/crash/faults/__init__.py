"""Every fault of the suite, a module for each family."""

from tests.crash.faults import (
    backlog,
    broker,
    clock,
    database,
    disk,
    identity,
    kill,
    limits,
    link,
    receiver,
)

FAMILIES = (kill, link, broker, disk, database, clock, limits, receiver, identity, backlog)
FAULTS = {fault.name: fault for family in FAMILIES for fault in family.FAMILY}
