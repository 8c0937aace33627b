"""Settings of all tests: nothing may fail because a machine is slow."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "kanglian", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("kanglian")
