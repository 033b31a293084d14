"""Every fault of the suite, a module for each family."""

from tests.crash.faults import broker, kill, link

FAULTS = {fault.name: fault for family in (kill, link, broker) for fault in family.FAMILY}
