"""check_envoy.py FILE...: asks Envoy itself whether these configuration files are valid."""

import sys
from pathlib import Path

from stack.envoy import validate

faults = {file: fault for file in sys.argv[1:] if (fault := validate(Path(file)))}
for file, fault in faults.items():
    print(f"{file}: {fault}", file=sys.stderr)
if not faults:
    print(f"Envoy accepts {' '.join(sys.argv[1:])}")
sys.exit(bool(faults))
