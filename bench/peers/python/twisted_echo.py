"""Newline echo with Twisted's LineOnlyReceiver; a connection is paused while its output waits."""

import sys

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.protocols.basic import LineOnlyReceiver
from zope.interface import implementer


@implementer(IHalfCloseableProtocol)
class Echo(LineOnlyReceiver):
    delimiter = b"\n"
    MAX_LENGTH = 64 * 1024

    def connectionMade(self):
        self.transport.setTcpNoDelay(True)
        # The transport pauses and resumes us, and we pass it on to what it reads.
        self.transport.registerProducer(self.transport, True)

    def connectionLost(self, reason):
        self.transport.unregisterProducer()

    def readConnectionLost(self):
        self.transport.unregisterProducer()
        self.transport.loseConnection()  # After what waits.

    def writeConnectionLost(self):
        pass

    def lineReceived(self, line):
        self.sendLine(line)


class EchoFactory(Factory):
    protocol = Echo
    noisy = False


reactor.listenTCP(int(sys.argv[1]), EchoFactory(), backlog=4096, interface="127.0.0.1")
reactor.run()
