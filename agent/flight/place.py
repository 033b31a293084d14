"""Latitudes and longitudes as vehicles tell them."""

import math

EARTH_M = 6_371_008.8  # mean radius, IUGG 1980
E7 = 1e-7


def spot(lat_e7: int, lon_e7: int) -> tuple[float, float] | None:
    """Give latitude and longitude in degrees; None where a vehicle tells none.

    Args:
        lat_e7: degrees times ten million, as in GLOBAL_POSITION_INT.
        lon_e7: the same of the longitude.
    """
    lat_deg, lon_deg = lat_e7 * E7, lon_e7 * E7
    is_place = abs(lat_deg) <= 90 and abs(lon_deg) <= 180  # noqa: PLR2004 - a circle's degrees
    return (lat_deg, lon_deg) if is_place and (lat_e7 or lon_e7) else None


def distance_m(lat_a_deg: float, lon_a_deg: float, lat_b_deg: float, lon_b_deg: float) -> float:
    """Give the metres between two places over a sphere (haversine)."""
    lat_a, lat_b = math.radians(lat_a_deg), math.radians(lat_b_deg)
    by_lat = math.sin((lat_b - lat_a) / 2) ** 2
    by_lon = math.sin(math.radians(lon_b_deg - lon_a_deg) / 2) ** 2
    root = by_lat + math.cos(lat_a) * math.cos(lat_b) * by_lon
    return 2 * EARTH_M * math.asin(math.sqrt(min(1.0, root)))
