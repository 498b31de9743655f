"""Which resources pilots are sent to."""

import pytest

from pilotage import resources
from pilotage.configuration import ConfigurationError, loads

TEXT = """\
vos: {{demo: {{}}}}
sites:
  NORTH:
    resources:
      desk: {{type: local, flavour: LOCAL, queues: {{all: {{}}}}}}
      machines: {{type: {kind}, flavour: VAC, queues: {{all: {{}}}}}}
"""


@pytest.mark.parametrize("kind", resources.FACTORIES)
def test_machines_that_start_by_themselves_are_sent_nothing(kind):
    configuration = loads(TEXT.format(kind=kind))
    resources.check(configuration)
    assert list(resources.directed(configuration)) == ["desk"]


def test_an_unknown_type_is_refused_with_its_place_and_what_there_is():
    with pytest.raises(ConfigurationError) as caught:
        resources.check(loads(TEXT.format(kind="vax"), "here.yaml"))
    assert str(caught.value).startswith("here.yaml:6:") and "did you mean 'vac'?" in str(caught.value)
