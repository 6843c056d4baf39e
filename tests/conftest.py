"""What all tests share."""

import signal

# Under `nohup`, or in the background of a script, SIGINT is ignored, and every child process would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
