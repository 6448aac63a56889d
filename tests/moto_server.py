"""moto's S3 server with conditional writes that hold: its threads take turns only where one waits for a socket."""

import sys

from moto.server import main

# moto looks whether a key is there, and then writes it.
sys.setswitchinterval(3600)
main(sys.argv[1:])
