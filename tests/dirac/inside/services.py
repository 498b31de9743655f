"""Run in DIRAC's server environment: dirac-service for several services, listening on 127.0.0.1 alone.

DIRAC has no option for the address it listens on (it takes all), so its transport is told here; nothing else differs.
"""

import socket
import sys

from DIRAC.Core.DISET.private.Transports.M2SSLTransport import SSLTransport
from M2Crypto import SSL


def on_ipv4(self):
    return SSL.Connection(self._SSLTransport__ctx, family=socket.AF_INET)


def as_server(self, original=SSLTransport.initAsServer):
    self.stServerAddress = ("127.0.0.1", self.stServerAddress[1])
    return original(self)


SSLTransport._SSLTransport__getConnection = on_ipv4
SSLTransport.initAsServer = as_server

from DIRAC.Core.scripts.dirac_service import main  # noqa: E402

sys.exit(main())
