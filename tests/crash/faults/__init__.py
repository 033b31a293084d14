"""Every fault of the suite, a module for each family."""

from tests.crash.faults import broker, database, disk, kill, link

FAMILIES = (kill, link, broker, disk, database)
FAULTS = {fault.name: fault for family in FAMILIES for fault in family.FAMILY}
