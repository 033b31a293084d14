"""What the error tree promises to those who catch."""

import pytest

from agent.core import errors


def test_a_config_error_keeps_its_problems_apart() -> None:
    error = errors.ConfigError("a.toml: x: missing", "a.toml: y: unknown key")
    assert error.problems == ("a.toml: x: missing", "a.toml: y: unknown key")
    assert str(error) == "a.toml: x: missing\na.toml: y: unknown key"


@pytest.mark.parametrize(
    ("raised", "caught"),
    [
        (errors.SourceLost, errors.Transient),
        (errors.UplinkDown, errors.Transient),
        (errors.AuthRefused, errors.Permanent),
        (errors.ModelRejected, errors.Permanent),
        (errors.OutboxFull, errors.StorageError),
        (errors.MalformedMessage, errors.IntegrityError),
    ],
)
def test_each_is_caught_by_what_is_to_be_done(
    raised: type[Exception], caught: type[Exception]
) -> None:
    groups = {errors.Transient, errors.Permanent, errors.StorageError, errors.IntegrityError}
    assert {group for group in groups if issubclass(raised, group)} == {caught}
    assert issubclass(raised, errors.AgentError)
