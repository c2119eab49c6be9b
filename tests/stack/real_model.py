"""real_model.py MODEL PORT: serves the model file on that loopback port until told to stop."""

import signal
import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx = 4096
params.cpuparams.n_threads = 1
params.cpuparams_batch.n_threads = 1
params.hostnames = ["127.0.0.1"]
params.port = int(sys.argv[2])
params.use_jinja = True
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
server = xllamacpp.Server(params)
signal.sigwait([signal.SIGTERM, signal.SIGINT])
