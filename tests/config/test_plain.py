from pydantic import BaseModel

from proxy.config.plain import plain
from proxy.config.schema import Config


def assert_alike(made: object, settings: object) -> None:
    assert isinstance(settings, BaseModel)
    assert not isinstance(made, BaseModel)
    for name in type(settings).model_fields:
        value, own = getattr(settings, name), getattr(made, name)
        if isinstance(value, BaseModel):
            assert_alike(own, value)
        elif isinstance(value, tuple) and any(isinstance(one, BaseModel) for one in value):
            for one, of_it in zip(own, value, strict=True):
                assert_alike(one, of_it)
        else:
            assert own == value


def test_plain_when_a_configuration_is_given_then_it_has_all_its_values_and_no_model_is_left() -> None:
    config = Config.model_validate(
        {"upstreams": [{"name": "a", "base_url": "http://a/v1"}, {"name": "b", "base_url": "http://b/v1"}]}
    )
    made = plain(config)
    assert_alike(made, config)
    assert [one.name for one in made.providers] == ["a", "b"]
    assert made.server.listen.address == config.server.listen.address


def test_plain_when_made_twice_then_the_classes_are_the_same() -> None:
    assert type(plain(Config())) is type(plain(Config()))
